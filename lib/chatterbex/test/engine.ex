defmodule Chatterbex.Test.Engine do
  @moduledoc false
  # The engine of servers with `testing: true`. It accepts the same commands as the others, and answers each at once
  # with the same events.

  alias Chatterbex.{Audio, Error, JSON, Model, Test}
  alias Chatterbex.Test.Ledger

  @enforce_keys [:server, :model]
  defstruct @enforce_keys

  @type t :: %__MODULE__{server: GenServer.server(), model: Model.t()}

  # Characters of a second of speech, and the shortest speech, in seconds.
  @pace 15
  @shortest 0.3

  # A tone of a hundred samples a wave: 240 Hz at 24 kHz. It is as loud as speech.
  @wave for n <- 0..99, into: "", do: <<0.1 * :math.sin(n / 100 * 2 * :math.pi())::float-32-little>>

  # The marks of a saved voice of this version: see Chatterbex.Voice.Saved.
  @format "1"

  @doc """
  The engine for a server with these options, which calls this.
  """
  @spec new(map) :: t
  def new(options) do
    {:ok, model} = Model.fetch(options.model)
    %__MODULE__{server: options.name || self(), model: model}
  end

  @doc """
  What a request carries to record its callers; called in the calling process.
  """
  @spec asked(map) :: map
  def asked(options) do
    {text, options} = Map.pop(options, :text)

    %{
      ref: make_ref(),
      callers: [self() | Process.get(:"$callers", [])],
      text: if(is_binary(text), do: text),
      options: options |> Map.delete(:server) |> Map.reject(fn {_name, value} -> is_nil(value) end)
    }
  end

  @doc """
  Runs a command; the events are sent to the calling process.
  """
  @spec submit(t, map) :: :ok
  def submit(engine, %{"id" => id} = command) do
    for {event, payload} <- obey(command, engine), do: send(self(), {:chatterbex_event, id, event, payload})
    :ok
  end

  defp obey(%{"op" => "load"}, _engine),
    do: [
      {"loaded",
       %{"device" => %{"actual" => "cpu", "reason" => "a server for tests uses no device"}, "max_batch" => 4}}
    ]

  defp obey(%{"op" => "generate", "options" => options} = command, engine) do
    audio = audio(options["audio"])

    function =
      cond do
        audio -> :convert
        command["stream"] -> :stream
        true -> :generate
      end

    piece = if audio, do: nil, else: command["text"]

    case answer(function, options["test"], piece, audio, engine) do
      {:ok, sound} -> speak(sound, piece, audio, command, engine)
      {:error, error} -> [{"started", %{}}, failed(error)]
    end
  end

  defp obey(%{"op" => "call", "function" => "clone", "arguments" => arguments}, engine) do
    audio = audio(arguments)

    case answer(:clone, arguments["test"], nil, audio, engine) do
      {:ok, _sound} ->
        [{"done", %{"voice" => voice(engine.model), "quality" => quality(audio, engine.model)}}]

      {:error, error} ->
        [failed(error)]
    end
  end

  defp obey(%{"op" => "call", "function" => function}, _engine),
    do: [failed(Error.new(:not_supported, "a server for tests has no function #{function}"))]

  defp obey(_unload, _engine), do: []

  defp audio(nil), do: nil

  defp audio(%{"samples" => {:bytes, samples}, "sample_rate" => rate}),
    do: %Audio{samples: samples, sample_rate: rate}

  defp answer(function, asked, piece, audio, engine) do
    request = %{
      function: function,
      server: engine.server,
      model: engine.model.name,
      text: asked.text,
      audio: audio,
      options: asked.options
    }

    {request, stub} = Ledger.ask(asked.ref, asked.callers, request, piece)
    if is_function(stub), do: stub |> called(Map.put(request, :piece, piece)) |> sound(), else: sound(stub)
  end

  # A stub that fails must not end the server.
  defp called(stub, request) do
    stub.(request)
  catch
    kind, reason ->
      message = Exception.format_banner(kind, reason, __STACKTRACE__)
      {:error, Error.new(:generation_failed, "the stub of Chatterbex.Test failed: #{message}")}
  end

  defp sound(answer) do
    case Test.error(answer) do
      nil -> {:ok, answer}
      :invalid -> {:error, Test.invalid(answer)}
      error -> {:error, error}
    end
  end

  defp speak(sound, piece, audio, command, engine) do
    rate = engine.model.sample_rate
    frames = round(seconds(piece, audio) * rate)
    samples = samples(sound, frames)

    metadata = %{
      "seed" => command["options"]["seed"],
      "voice" => voice_name(command["options"]["voice"], engine.model),
      "finish_reason" => "stop",
      "generation_ms" => 0.0
    }

    if command["stream"] do
      chunks = for {part, n} <- Enum.with_index(parts(samples, 4 * rate)), do: chunk(part, n)
      [{"started", %{}}] ++ chunks ++ [{"done", %{"samples" => "", "metadata" => metadata}}]
    else
      [{"started", %{}}, {"done", %{"samples" => samples, "metadata" => metadata}}]
    end
  end

  defp seconds(nil, audio), do: Audio.duration(audio)
  defp seconds(piece, nil), do: max(String.length(piece) / @pace, @shortest)

  defp samples(:silence, frames), do: :binary.copy(<<0::32>>, frames)

  defp samples(:tone, frames),
    do: @wave |> :binary.copy(div(frames, 100) + 1) |> binary_part(0, 4 * frames)

  # A chunk is a second long, like that of a fast model.
  defp parts(samples, size) when byte_size(samples) <= size, do: [samples]

  defp parts(samples, size) do
    <<part::binary-size(size), rest::binary>> = samples
    [part | parts(rest, size)]
  end

  defp chunk(samples, number), do: {"chunk", %{"samples" => samples, "metadata" => %{"chunk" => number}}}

  defp voice_name(name, _model) when is_binary(name), do: name
  defp voice_name(nil, model), do: List.first(model.voices) || "built-in"
  defp voice_name(_recording_or_saved, _model), do: "given"

  defp failed(error),
    do:
      {"failed",
       %{"reason" => Atom.to_string(error.reason), "message" => error.message, "details" => error.details}}

  # A safetensors file without a tensor.
  defp voice(model) do
    header =
      JSON.encode(%{"__metadata__" => %{"chatterbex_voice" => @format, "family" => model.voice_family}})

    <<byte_size(header)::64-little, header::binary>>
  end

  defp quality(audio, model) do
    %{
      "model" => model.name,
      "seconds" => Audio.duration(audio),
      "sample_hash" => :sha256 |> :crypto.hash(audio.samples) |> Base.encode16(case: :lower)
    }
  end
end
