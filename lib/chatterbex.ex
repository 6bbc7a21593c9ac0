defmodule Chatterbex do
  @moduledoc """
  Text-to-speech: text in, audio out.

      {:ok, audio} = Chatterbex.generate("Hello, world!")
      :ok = Chatterbex.Audio.write(audio, "hello.wav")

  Run `mix chatterbex.setup` once on the machine first. It installs a voice that needs no download of weights.
  The first call starts the default server and loads that voice. Later calls find it loaded.

  ## Under your own supervisor

  A server runs one model. Give it a name, and use that name in your calls:

      children = [
        {Chatterbex, name: MyApp.Speech, model: :hibari, max_queue: 50}
      ]

      {:ok, audio} = Chatterbex.generate("Hello, world!", server: MyApp.Speech)

  Every function takes its input first and its options last. The option `:server` names the server. Without it, the
  call goes to the default server. `generate/3` and `stream/3` also take the server first, like the functions of
  `GenServer`:

      {:ok, audio} = Chatterbex.generate(MyApp.Speech, "Hello, world!", seed: 7)

  A server is a name, a pid, `{name, node}`, `{:via, module, name}` or `{:global, name}`, as for any `GenServer`.
  The calling node needs neither Python nor the model.

  Requests made while the model loads wait for it. The model works on `:max_batch` requests at a time, and up to
  `:max_queue` more may be open. Any further request is refused with `:overloaded`. A request is cancelled when the
  calling process ends or the request's `:timeout` expires.

  With `idle: 600_000` the server unloads its model after ten minutes without work, and loads it again for the next
  request.

  ## Processes

      your supervisor                     Chatterbex.Supervisor (rest_for_one)
      `-- a server, one model each        |-- the runtime: the one Python of this VM
                                          `-- the default server, started on first use

  All models of a VM share one operating system thread, which owns Python. It is not one of the VM's schedulers, so
  nothing else waits while it works. See the design decisions 1 and 2.

  With `isolation: :peer` a server's model runs in its own operating system process. A crash there ends that
  process, not your VM. `Chatterbex.Pool` puts several such servers, on one node or several, behind one name.

  ## In the tests of your application

  With `config :chatterbex, testing: true` all servers answer with tones, without Python: see `Chatterbex.Test`.

  ## Reference

  All options are listed in `Chatterbex.Options`, all failures in `Chatterbex.Error`, all events in
  `Chatterbex.Telemetry`.
  """

  alias Chatterbex.{
    Audio,
    Client,
    DefaultServer,
    Device,
    Error,
    Model,
    Options,
    Server,
    Telemetry,
    Text.Validation
  }

  alias Chatterbex.Speech.{AudioStream, Conversion, Metadata, Plan, Sender, Whole}

  @typedoc "A running server, as `GenServer` knows it."
  @type server :: GenServer.server()

  @doc """
  A child specification for a supervisor.

  ## Examples

      iex> Chatterbex.child_spec(name: MyApp.Speech).id
      MyApp.Speech
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      type: :worker,
      restart: :permanent,
      shutdown: 5_000
    }
  end

  @doc """
  Starts a server, which loads its model in the background.

  The server starts even if the model cannot be loaded. Requests then fail with the load error, and a later
  request tries to load it again. `await_ready/1` waits for the model.

  ## Options

  #{Chatterbex.Options.Schema.docs(:server)}

  ## Examples

      iex> {:error, error} = Chatterbex.start_link(modle: :hibari)
      iex> error.reason
      :invalid_option

      {:ok, server} = Chatterbex.start_link(name: MyApp.Speech, model: :hibari)
  """
  @spec start_link(keyword) :: GenServer.on_start() | {:error, Error.t()}
  defdelegate start_link(options), to: Server

  @doc """
  Speaks a text, and returns all of its audio: `generate(text)`, `generate(text, options)` or `generate(server, text)`.

  The text is a string with at least one letter or digit, at most the server's `:max_characters` long. A long text is
  split into pieces (`Chatterbex.Text.chunks/2`). The pieces are spoken one after another, or several at once if that
  is faster on the model, and joined with pauses.

  `audio.metadata` has `:model`, `:voice`, `:seed`, `:pieces`, `:generation_ms` (milliseconds of work), `:rtf` (seconds of
  work per second of audio) and, depending on the model, more. It has `:warnings` if a piece did not end by itself.

  ## Options

  #{Chatterbex.Options.Schema.docs(:generate)}

  ## Examples

      {:ok, audio} = Chatterbex.generate("Hello!", server: MyApp.Speech, speed: 1.2)
      audio.metadata.seed

      {:ok, audio} = Chatterbex.generate(MyApp.Speech, "Hello!")

      iex> {:error, error} = Chatterbex.generate("   ")
      iex> error.message
      "the text is blank; give at least one word to speak"

      iex> {:error, error} = Chatterbex.generate("Hello!", sead: 7)
      iex> error.message =~ "unknown option :sead. Did you mean :seed? The options are "
      true
  """
  @spec generate(String.t(), keyword) :: {:ok, Audio.t()} | {:error, Error.t()}
  @spec generate(server, String.t()) :: {:ok, Audio.t()} | {:error, Error.t()}
  def generate(text_or_server, options_or_text \\ []) do
    {server, text, options} = arguments(text_or_server, options_or_text)
    speak(server, text, options)
  end

  @doc """
  The same as `generate/2`, with the server first.

  ## Examples

      {:ok, audio} = Chatterbex.generate(MyApp.Speech, "Hello!", seed: 7)

      iex> {:error, error} = Chatterbex.generate(MyApp.Speech, "Hello!", server: MyApp.Other)
      iex> error.message
      "two servers were given, MyApp.Speech and server: MyApp.Other; give one"
  """
  @spec generate(server, String.t(), keyword) :: {:ok, Audio.t()} | {:error, Error.t()}
  def generate(server, text, options), do: speak({:first, server}, text, options)

  defp speak(first, text, options) do
    Telemetry.span([:chatterbex, :generate], characters(text), about(first, options), fn ->
      with {:ok, options} <- Options.validate(:generate, options),
           {:ok, server} <- one_server(first, options),
           {:ok, text} <- Validation.check(text),
           {:ok, server} <- DefaultServer.resolve(server),
           {:ok, plan} <- Plan.new(server, Map.put(options, :text, text)),
           {:ok, audio} <- Whole.generate(plan, text, options.progress) do
        measurements = %{audio_seconds: Audio.duration(audio), samples: div(byte_size(audio.samples), 4)}
        {:ok, audio, Map.merge(measurements, Metadata.speed(audio.metadata)), audio.metadata}
      end
    end)
  end

  @doc """
  The same as `generate/2`, but returns the audio or raises `Chatterbex.Error`.

  ## Examples

      audio = Chatterbex.generate!("Hello!")

      iex> Chatterbex.generate!("")
      ** (Chatterbex.Error) the text is empty; give at least one word to speak
  """
  @spec generate!(String.t(), keyword) :: Audio.t()
  @spec generate!(server, String.t()) :: Audio.t()
  def generate!(text_or_server, options_or_text \\ []),
    do: Error.unwrap!(generate(text_or_server, options_or_text))

  @doc """
  The same as `generate/3`, but returns the audio or raises `Chatterbex.Error`.

  ## Examples

      audio = Chatterbex.generate!(MyApp.Speech, "Hello!", seed: 7)

      iex> Chatterbex.generate!(MyApp.Speech, "Hello!", seed: -1)
      ** (Chatterbex.Error) option :seed must be a whole number from 0 to 4294967295, got -1
  """
  @spec generate!(server, String.t(), keyword) :: Audio.t()
  def generate!(server, text, options), do: Error.unwrap!(generate(server, text, options))

  @doc """
  Speaks a text as a lazy Enumerable of `Chatterbex.Audio`, so that you hear the first sound while the rest is still
  being made: `stream(text)`, `stream(text, options)` or `stream(server, text)`.

  The text is a string of any length, or an Enumerable of strings, such as the tokens of a language model. Each sentence
  is spoken as soon as it is complete. The stream pulls text from the source, and audio from the model, only when they
  are needed, and never more than a few sentences ahead. An endless text is fine.

  The Enumerable runs in its own process, so that audio arrives while it waits for more text. If it only works in the
  process that created it, such as a Req response with `into: :self`, let the stream create it:
  `Stream.flat_map([prompt], &MyApp.LLM.tokens/1)`. The Enumerable is closed when the stream ends, is halted or fails, or
  when its process ends. If it is blocked at that moment, it is closed when it returns; after 5 seconds its process is
  killed.

  Each chunk's `metadata` has `:piece` (the number of the sentence, from 0) and `:text` (the sentence). A pause is a
  separate chunk, with `:pause` in milliseconds. All chunks have the same sample rate and can be played, or joined,
  one after another.

  The stream belongs to the process that consumes it. When that process stops consuming, halts the stream
  (`Enum.take/2`) or ends, the work is cancelled within one step of the model. Failures raise `Chatterbex.Error`: a bad
  option at once, everything else while you consume the stream, after the chunks that came before the failure. To
  receive the chunks as messages, see `stream_to/3`.

  ## Options

  #{Chatterbex.Options.Schema.docs(:stream)}

  ## Examples

      "A long text. It goes on." |> Chatterbex.stream() |> Enum.each(&play/1)

      ["Hel", "lo. How ", "are you?"]
      |> Chatterbex.stream(server: MyApp.Speech)
      |> Enum.map(&Chatterbex.Audio.duration/1)

      iex> Chatterbex.stream("Hello!", sead: 7)
      ** (Chatterbex.Error) unknown option :sead. Did you mean :seed? #{Chatterbex.Options.names(:stream)}
  """
  @spec stream(String.t() | Enumerable.t(), keyword) :: Enumerable.t()
  @spec stream(server, String.t() | Enumerable.t()) :: Enumerable.t()
  def stream(text_or_server, options_or_text \\ []) do
    {server, text, options} = arguments(text_or_server, options_or_text)
    lazily(server, text, options)
  end

  @doc """
  The same as `stream/2`, with the server first.

  ## Examples

      MyApp.Speech |> Chatterbex.stream(MyApp.LLM.tokens(prompt), seed: 7) |> Enum.each(&play/1)

      iex> Chatterbex.stream(MyApp.NoSuchServer, "Hello!", []) |> Enum.to_list()
      ** (Chatterbex.Error) no server runs as MyApp.NoSuchServer. Start it under your supervisor: children = [{Chatterbex, name: MyApp.NoSuchServer}]
  """
  @spec stream(server, String.t() | Enumerable.t(), keyword) :: Enumerable.t()
  def stream(server, text, options), do: lazily({:first, server}, text, options)

  defp lazily(first, text, options) do
    case stream_options(:stream, first, text, options) do
      {:ok, server, options} -> AudioStream.new(request(server, text, options))
      {:error, error} -> raise error
    end
  end

  @doc """
  Speaks a text chunk by chunk to a process, such as a LiveView or a `GenServer`.

  The process receives

    * `{:chatterbex, ref, {:chunk, audio}}` for each chunk
    * `{:chatterbex, ref, :done}`, or `{:chatterbex, ref, {:error, error}}`, as the last message

  The text is the same as for `stream/2`. When the listening process ends, the work is cancelled. While it has many
  unread messages, the stream waits.

  A listener that forwards chunks, for example to a browser, reads its messages at once, however slow the browser is.
  With `:max_unacked` the stream waits until chunks are acknowledged: see `ack/2`.

  ## Options

  The options of `stream/2`, and

  #{Options.Schema.docs(:stream_to, [:max_unacked])}

  ## Examples

      {:ok, ref} = Chatterbex.stream_to("Hello, world!", self(), server: MyApp.Speech)

      iex> {:error, error} = Chatterbex.stream_to("Hello!", self(), sead: 7)
      iex> error.reason
      :invalid_option

      iex> {:ok, ref} = Chatterbex.stream_to("Hello!", self(), server: MyApp.NoSuchServer)
      iex> receive do {:chatterbex, ^ref, {:error, error}} -> error.reason end
      :not_running
  """
  @spec stream_to(String.t() | Enumerable.t(), pid, keyword) :: {:ok, reference} | {:error, Error.t()}
  def stream_to(text, listener, options \\ []) when is_pid(listener) do
    with {:ok, server, options} <- stream_options(:stream_to, nil, text, options) do
      make = &AudioStream.new(request(server, text, options), &1)
      Sender.start(listener, options.max_unacked || :infinity, make)
    end
  end

  @doc """
  Acknowledges `chunks` more chunks of a `stream_to/3` stream, for example once a browser has played them. The stream
  then sends the same number of new chunks.

  It has an effect only if the stream was started with `:max_unacked`. Call it on the node where the stream was started.
  Chunks that were never sent do not count, and a finished stream is not affected.

  ## Examples

      iex> Chatterbex.ack(make_ref())
      :ok
  """
  @spec ack(reference, pos_integer) :: :ok
  def ack(ref, chunks \\ 1) when is_reference(ref) and is_integer(chunks) and chunks > 0,
    do: Sender.ack(ref, chunks)

  @doc """
  Cancels a `stream_to/3` stream. Its listener receives `{:chatterbex, ref, {:error, error}}` with the reason
  `:cancelled` as the last message. A finished stream is not affected.

  ## Examples

      iex> Chatterbex.cancel(make_ref())
      :ok
  """
  @spec cancel(reference) :: :ok
  def cancel(ref) when is_reference(ref), do: Sender.cancel(ref)

  @doc """
  Converts speech to another voice. The words, and the way they are spoken, stay the same.

  `source` is a `Chatterbex.Audio` or the path of a recording, longer than 0.1 seconds and at most an hour long. You need
  a server that runs the model `:conversion`, which does not speak text:

      children = [{Chatterbex, name: MyApp.Conversion, model: :conversion}]

  The result has one channel, 24,000 samples per second, the length of the source to within 80 milliseconds per minute,
  and a watermark. A source longer than a minute is cut at its quietest places, and the parts are joined again.
  Each seed gives a slightly different reading of the same speech.

  ## Options

  #{Chatterbex.Options.Schema.docs(:convert)}

  ## Examples

      {:ok, audio} = Chatterbex.convert("me.wav", voice: {:file, "ann.wav"}, server: MyApp.Conversion)

      iex> {:error, error} = Chatterbex.convert("me.wav", voice: {:file, "ann.wav"}, server: MyApp.Conversion)
      iex> error.message
      "cannot read me.wav: no such file or directory (enoent)."
  """
  @spec convert(Audio.t() | Path.t(), keyword) :: {:ok, Audio.t()} | {:error, Error.t()}
  def convert(source, options) do
    started = System.monotonic_time(:millisecond)

    Telemetry.span([:chatterbex, :convert], %{}, DefaultServer.asked(options), fn ->
      with {:ok, options} <- Options.validate(:convert, options),
           :ok <- voiced(options),
           {:ok, recording} <- Conversion.recording(source),
           {:ok, server} <- DefaultServer.resolve(options.server),
           {:ok, plan} <- Plan.new(server, options, :audio),
           {:ok, audio} <- Conversion.convert(plan, recording, started) do
        measurements = %{seconds: recording.seconds, audio_seconds: Audio.duration(audio)}
        {:ok, audio, Map.merge(measurements, Metadata.speed(audio.metadata)), audio.metadata}
      end
    end)
  end

  defp voiced(%{voice: nil}) do
    {:error,
     Error.new(
       :invalid_option,
       ~s(a conversion needs a voice: give voice: "ann" or another one, see Chatterbex.Voice)
     )}
  end

  defp voiced(_options), do: :ok

  @doc """
  The same as `convert/2`, but returns the audio or raises `Chatterbex.Error`.

  ## Examples

      audio = Chatterbex.convert!("me.wav", voice: {:file, "ann.wav"}, server: MyApp.Conversion)

      iex> Chatterbex.convert!("me.wav", server: MyApp.Conversion)
      ** (Chatterbex.Error) a conversion needs a voice: give voice: "ann" or another one, see Chatterbex.Voice
  """
  @spec convert!(Audio.t() | Path.t(), keyword) :: Audio.t()
  def convert!(source, options), do: Error.unwrap!(convert(source, options))

  @doc """
  Waits until a server's model is loaded. An idle model is loaded again.

  Like `generate/2`, it starts the default server. Call it when your application starts to get your first audio sooner.

  ## Options

  #{Chatterbex.Options.Schema.docs(:await_ready)}

  ## Examples

      :ok = Chatterbex.await_ready(server: MyApp.Speech, timeout: 60_000)

      iex> {:error, error} = Chatterbex.await_ready(server: MyApp.NoSuchServer)
      iex> error.message
      "no server runs as MyApp.NoSuchServer. Start it under your supervisor: children = [{Chatterbex, name: MyApp.NoSuchServer}]"
  """
  @spec await_ready(keyword) :: :ok | {:error, Error.t()}
  def await_ready(options \\ []) do
    with {:ok, options} <- Options.validate(:await_ready, options),
         {:ok, server} <- DefaultServer.resolve(options.server),
         do: Client.await_ready(server, options.timeout)
  end

  @doc """
  Returns a map that describes a server and its state.

  The map has

    * `:server`, `:model`, and `:status`, one of `:loading`, `:ready`, `:idle` (unloaded until it is needed: see `:idle` in
      `Chatterbex.Options`) and `:failed`
    * `:error` - the `Chatterbex.Error` of a failed server, otherwise `nil`
    * `:device` - `%{requested: device, actual: device | nil, reason: string | nil, warning: string | nil, proof: map | nil,
      limited: string | nil}`. `reason` says why the actual device is not the requested one, `warning` what you should
      know about a device that works, and `limited` why it speaks fewer requests at a time than you asked for. `proof` is
      how close the device came to the CPU before the model was ready, by component: `%{passed: boolean, components:
      %{"t3.logits": %{difference: float, tolerance: float, ...}}}`; it is `nil` on the CPU
    * `:queue` - `%{open: n, waiting: n, running: n, max_queue: n, max_batch: n}`: the open requests, those of them that
      the model has not started, the pieces that the model is working on, and the two limits (see `:max_queue` in
      `Chatterbex.Options`)
    * `:load` - the seconds that each phase of loading took
    * `:memory` - the bytes of each part of the model when it was loaded; an empty map while the model is idle
    * `:components` - the device of each part of the model, as in `%{t3: "mps:0"}`. All parts that speak are on one
      device. `:analysis` and `:ve`, which make voices, stay on the CPU
    * `:versions` - the versions of the Python packages that the model runs on, as in `%{"torch" => "2.15.0"}`
    * `:precision` - `%{requested: string, t3: string | nil, flow: string, verdict: map | nil}`: what T3 and S3Gen's flow
      compute in, and what `precision: :auto` measured (see [the guide](production.md#precision)); `nil` for a model
      that has no choice of precision
    * `:checkpoint` - the folder with the model's files, or `nil`
    * `:isolation` - `:none` or `:peer`
    * `:testing` - `true` if the server speaks tones instead of running a model: see `Chatterbex.Test`
    * `:process` - `%{os_pid: string | nil, died: n}`: the operating system process of an isolated model, and how many
      times it was replaced

  ## Options

  #{Chatterbex.Options.Schema.docs(:info)}

  ## Examples

      {:ok, %{status: :ready, device: %{actual: :cpu}}} = Chatterbex.info(server: MyApp.Speech)

      iex> {:error, error} = Chatterbex.info(server: MyApp.NoSuchServer)
      iex> error.reason
      :not_running
  """
  @spec info(keyword) :: {:ok, map} | {:error, Error.t()}
  def info(options \\ []) do
    with {:ok, options} <- Options.validate(:info, options),
         {:ok, server} <- DefaultServer.resolve(options.server),
         do: Client.info(server)
  end

  @doc """
  Lists the models that you can use.

  ## Examples

      iex> :hibari in Enum.map(Chatterbex.models(), & &1.name)
      true
  """
  @spec models() :: [Model.t()]
  def models, do: Model.all()

  @doc """
  Lists the devices of this machine. For each device that you cannot use, it says why.

  It never fails. If PyTorch is set up, it asks PyTorch in a separate process, which takes a few seconds (15 at most)
  the first time, and caches the answer. Otherwise it returns at once what it can find out without PyTorch, and the
  command that sets PyTorch up. It does not start Python in this VM, and it does not test the devices:
  `Chatterbex.Doctor` does.

  ## Examples

      iex> Enum.find(Chatterbex.devices(), & &1.device == :cpu).available
      true
  """
  @spec devices() :: [Device.description()]
  def devices, do: Device.local()

  @doc """
  Stops a server. Its open requests fail with a `:cancelled` error.

  A supervisor restarts the server if its child specification says so (the default does).
  The next call that needs the default server starts it again.

  ## Options

  #{Chatterbex.Options.Schema.docs(:stop)}

  ## Examples

      :ok = Chatterbex.stop(server: MyApp.Speech)

      iex> {:error, error} = Chatterbex.stop(server: MyApp.NoSuchServer)
      iex> error.reason
      :not_running
  """
  @spec stop(keyword) :: :ok | {:error, Error.t()}
  def stop(options \\ []) do
    with {:ok, options} <- Options.validate(:stop, options),
         do: Client.stop(DefaultServer.name(options.server), options.timeout)
  end

  # A server is never a string, and a text is never a name, a pid or a tuple. An argument before a string is a server;
  # `nil` before options is a missing text.
  defp arguments(text, options) when is_binary(text), do: {nil, text, options}

  defp arguments(server, text)
       when is_binary(text) or is_pid(server) or is_tuple(server) or (is_atom(server) and server != nil),
       do: {{:first, server}, text, []}

  defp arguments(text, options), do: {nil, text, options}

  defp characters(text) when is_binary(text), do: %{characters: String.length(text)}
  defp characters(_no_string), do: %{}

  # The metadata of every event of a call, even if its options are wrong.
  defp about({:first, server}, _options), do: %{server: server}

  defp about(nil, options), do: DefaultServer.asked(options)

  # The server that a call names; `nil` for the default one.
  defp one_server(nil, options), do: {:ok, options.server}

  defp one_server({:first, server}, %{server: nil}),
    do: Options.value("the first argument", :server, server)

  defp one_server({:first, server}, %{server: other}) do
    {:error,
     Error.new(
       :invalid_option,
       "two servers were given, #{inspect(server)} and server: #{inspect(other)}; give one"
     )}
  end

  defp request(server, text, options) do
    %{
      text: text,
      options: options,
      server: DefaultServer.name(server),
      measurements: characters(text),
      plan: fn ->
        with {:ok, server} <- DefaultServer.resolve(server),
             do: Plan.new(server, Map.put(options, :text, text))
      end
    }
  end

  # Checks everything that can be checked before the stream runs.
  defp stream_options(group, first, text, options) do
    with {:ok, options} <- Options.validate(group, options),
         {:ok, server} <- one_server(first, options),
         :ok <- enumerable(text),
         do: {:ok, server, options}
  end

  defp enumerable(text) when is_binary(text), do: with({:ok, _text} <- Validation.check(text), do: :ok)

  defp enumerable(text) do
    if Enumerable.impl_for(text),
      do: :ok,
      else:
        {:error,
         Error.new(
           :invalid_text,
           "the text must be a string or an Enumerable of strings, got #{Options.Schema.show(text)}"
         )}
  end
end
