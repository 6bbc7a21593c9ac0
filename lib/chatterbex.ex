defmodule Chatterbex do
  @moduledoc """
  Text-to-speech: text in, audio out.

      {:ok, audio} = Chatterbex.generate("Hello, world!")
      :ok = Chatterbex.Audio.write(audio, "hello.wav")

  `mix chatterbex.setup` must have run once on the machine; it brings a voice that needs no download of
  weights. The first call starts the default server, which loads that voice; later calls find it loaded.

  ## Under your own supervisor

  A server runs one model. Give it a name, and name it in your calls:

      children = [
        {Chatterbex, name: MyApp.Speech, model: :hibari, max_queue: 50}
      ]

      {:ok, audio} = Chatterbex.generate("Hello, world!", server: MyApp.Speech)

  Every function takes its input first and its options last. The server is the option `:server`; without it, the
  default server is asked. `generate/3` and `stream/3` also take the server first, as the functions of `GenServer` do:

      {:ok, audio} = Chatterbex.generate(MyApp.Speech, "Hello, world!", seed: 7)

  A server is a name, a pid, `{name, node}`, `{:via, module, name}` or `{:global, name}`, as for any `GenServer`:
  the node that asks needs neither Python nor the model.

  Requests made while the model loads wait for it. Beyond those that the model works on at a time, at most `:max_queue`
  requests may be open; one more is refused with `:overloaded`. When the calling process ends, or its `:timeout` is over, its request is cancelled.

  With `idle: 600_000` the server unloads its model after ten minutes without work, and loads it again for the next
  request.

  ## Processes

      your supervisor                     Chatterbex.Supervisor (rest_for_one)
      `-- a server, one model each        |-- the runtime: the one Python of this VM
                                          `-- the default server, started on first use

  All models of a VM share one operating system thread, which owns Python; it is no scheduler of the VM, so that
  nothing else waits while it works. See the design decisions 1 and 2.

  With `isolation: :peer` a server's model is in an operating system process of its own, so that a crash there ends that
  process and not your VM. `Chatterbex.Pool` puts several such servers, of one node or several, behind one name.

  ## In the tests of your application

  `config :chatterbex, testing: true` lets all servers answer with tones, without Python: see `Chatterbex.Test`.

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
    Text.Check
  }

  alias Chatterbex.Speech.{Conversion, Metadata, Plan, Sender, Stream, Whole}

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

  It starts even where the model cannot be loaded: every request is then answered with the error, and a later
  one tries to load again. `await_ready/1` waits for the model.

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

  The text is a string with at least one letter or digit, at most the server's `:max_characters` long. A long text is cut
  into pieces (`Chatterbex.Text.chunks/2`). They are spoken one after another, or several at once where the model
  gains from it, and joined with pauses.

  `audio.metadata` tells `:model`, `:voice`, `:seed`, `:pieces`, `:generation_ms` (milliseconds of work), `:rtf` (seconds of
  work per second of audio), and more by model; `:warnings` where a piece did not come to its end by itself.

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
           {:ok, text} <- Check.check(text),
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
  Speaks a text as a lazy Enumerable of `Chatterbex.Audio`, so that you hear the first sound while the rest is being made:
  `stream(text)`, `stream(text, options)` or `stream(server, text)`.

  The text is a string of any length, or an Enumerable of strings, such as the tokens of a language model: a sentence
  is spoken as soon as it is complete. Nothing is asked of the source or of the model before it is needed, and never
  more than a few sentences ahead, so that a text without end is fine.

  The Enumerable runs in a process of its own, so that audio comes while it waits for more text. If it only works in the
  process that made it, such as a response of Req with `into: :self`, let the stream make it:
  `Stream.flat_map([prompt], &MyApp.LLM.tokens/1)`. When the stream ends, is halted or fails, or its process ends, the
  Enumerable is closed. One that is blocked at that moment is closed when it comes back; after 5 seconds its process is
  killed.

  Each chunk's `metadata` tells `:piece` (the number of the sentence, from 0) and `:text` (the sentence); a pause is a
  chunk of its own, with `:pause` in milliseconds. All chunks have the same sample rate and can be played, or joined,
  one after another.

  The stream belongs to the process that takes from it. When it stops taking, halts the stream (`Enum.take/2`) or ends,
  the work is cancelled within one step of the model. What fails raises `Chatterbex.Error`: a bad option at once, all
  else while the stream is taken, after the chunks before it. For a process that gets its chunks as messages,
  see `stream_to/3`.

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
      {:ok, server, options} -> Stream.new(request(server, text, options))
      {:error, error} -> raise error
    end
  end

  @doc """
  Speaks a text chunk by chunk to a process, such as a LiveView or a `GenServer`.

  The process gets

    * `{:chatterbex, ref, {:chunk, audio}}`, as many as there are
    * `{:chatterbex, ref, :done}`, or `{:chatterbex, ref, {:error, error}}`, as the last message

  The text is that of `stream/2`. When the listening process ends, the work is cancelled. While it has many messages
  unread, the stream waits for it.

  A listener that passes chunks on, to a browser for instance, reads its messages at once, however slowly they go on from
  there. With `:max_unacked` the stream waits until chunks are acknowledged: see `ack/2`.

  ## Options

  Those of `stream/2`, and

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
      make = &Stream.new(request(server, text, options), &1)
      Sender.start(listener, options.max_unacked || :infinity, make)
    end
  end

  @doc """
  Acknowledges `chunks` more chunks of a stream of `stream_to/3`, as when a browser has played them: as many further ones
  are sent.

  It matters where the stream was begun with `:max_unacked`, and is called on the same node. Chunks that were never sent
  are not counted, and a stream that is done is left as it is.

  ## Examples

      iex> Chatterbex.ack(make_ref())
      :ok
  """
  @spec ack(reference, pos_integer) :: :ok
  def ack(ref, chunks \\ 1) when is_reference(ref) and is_integer(chunks) and chunks > 0,
    do: Sender.ack(ref, chunks)

  @doc """
  Cancels a stream of `stream_to/3`: its listener's last message is `{:chatterbex, ref, {:error, error}}` with the reason
  `:cancelled`. One that is done already is left as it is.

  ## Examples

      iex> Chatterbex.cancel(make_ref())
      :ok
  """
  @spec cancel(reference) :: :ok
  def cancel(ref) when is_reference(ref), do: Sender.cancel(ref)

  @doc """
  Says speech again in another voice: what was said, and how, stays.

  `source` is a `Chatterbex.Audio` or the path of a recording, of more than 0.1 seconds and at most an hour. It needs a
  server of its own model, which speaks no text:

      children = [{Chatterbex, name: MyApp.Conversion, model: :conversion}]

  The audio has one channel, 24,000 samples a second, the length of the source to within 80 milliseconds a minute, and a
  watermark. What is longer than a minute is cut where it is quietest and joined again.
  Every seed gives a slightly different reading of the same speech.

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
       ~s(a conversion needs a voice to say it in: give voice: "ann" or another one, see Chatterbex.Voice)
     )}
  end

  defp voiced(_options), do: :ok

  @doc """
  The same as `convert/2`, but returns the audio or raises `Chatterbex.Error`.

  ## Examples

      audio = Chatterbex.convert!("me.wav", voice: {:file, "ann.wav"}, server: MyApp.Conversion)

      iex> Chatterbex.convert!("me.wav", server: MyApp.Conversion)
      ** (Chatterbex.Error) a conversion needs a voice to say it in: give voice: "ann" or another one, see Chatterbex.Voice
  """
  @spec convert!(Audio.t() | Path.t(), keyword) :: Audio.t()
  def convert!(source, options), do: Error.unwrap!(convert(source, options))

  @doc """
  Waits until a server's model is loaded. A model that is idle is loaded again.

  The default server is started by this, as it is by `generate/2`: an application that calls it at its start has its first
  audio sooner.

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
  What a server is and does.

  The map has

    * `:server`, `:model`, and `:status`, one of `:loading`, `:ready`, `:idle` (unloaded until it is needed: see `:idle` in
      `Chatterbex.Options`) and `:failed`
    * `:error` - the `Chatterbex.Error` of a failed server, else `nil`
    * `:device` - `%{requested: device, actual: device | nil, reason: string | nil, warning: string | nil, proof: map | nil,
      limited: string | nil}`; `reason` says why the actual device is not the requested one, `warning` what to know of a
      device that works, and `limited` why it speaks fewer requests at a time than you asked for. `proof` is how close the
      device came to the CPU before the model was ready, by component: `%{passed: boolean, components:
      %{"t3.logits": %{difference: float, tolerance: float, ...}}}`; it is `nil` on the CPU
    * `:queue` - `%{open: n, waiting: n, running: n, max_queue: n, max_batch: n}`: open requests, those of them that the
      model has had nothing of yet, pieces that the model works on, and the two limits (see `:max_queue` in
      `Chatterbex.Options`)
    * `:load` - seconds by phase of loading
    * `:memory` - bytes by part of the model, as of when it was loaded; an empty map while it is idle
    * `:components` - the device of each part of the model, as `%{t3: "mps:0"}`; all parts that speak are on one.
      `:analysis` and `:ve`, which make voices, stay on the CPU
    * `:versions` - of the Python packages that the model runs on, by their names, as `%{"torch" => "2.15.0"}`
    * `:precision` - `%{requested: string, t3: string | nil, flow: string, verdict: map | nil}`: what T3 and S3Gen's flow
      compute in, and what `precision: :auto` has measured, as in [the guide](production.md#precision); `nil` for a model
      without a choice
    * `:checkpoint` - the folder with the model's files, or `nil`
    * `:isolation` - `:none` or `:peer`
    * `:testing` - whether there is no model: see `Chatterbex.Test`
    * `:process` - `%{os_pid: string | nil, died: n}`: the operating system process of an isolated model, and how often it
      had to be replaced

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
  The models that can be asked for.

  ## Examples

      iex> :hibari in Enum.map(Chatterbex.models(), & &1.name)
      true
  """
  @spec models() :: [Model.t()]
  def models, do: Model.all()

  @doc """
  The devices of this machine, and why each that cannot be used cannot.

  It never fails. Where PyTorch is set up it is asked, in a process of its own, which takes a few seconds (15 at most)
  the first time; the answer is kept. Otherwise it says at once what can be told without, and the command that sets
  PyTorch up. It does not start Python in this VM, and does not try the devices: `Chatterbex.Doctor` does.

  ## Examples

      iex> Enum.find(Chatterbex.devices(), & &1.device == :cpu).available
      true
  """
  @spec devices() :: [Device.description()]
  def devices, do: Device.local()

  @doc """
  Stops a server. Requests that wait or are being spoken are answered with a `:cancelled` error.

  A server under a supervisor is started again by it, if its child specification says so (the default does).
  The default server is started again by the next call that needs it.

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

  # No server is a string, and no text is a name, a pid or a tuple. What stands before a string is meant as a server; a
  # `nil` before options, as a text that is missing.
  defp arguments(text, options) when is_binary(text), do: {nil, text, options}

  defp arguments(server, text)
       when is_binary(text) or is_pid(server) or is_tuple(server) or (is_atom(server) and server != nil),
       do: {{:first, server}, text, []}

  defp arguments(text, options), do: {nil, text, options}

  defp characters(text) when is_binary(text), do: %{characters: String.length(text)}
  defp characters(_no_string), do: %{}

  # What every event of a call tells, also where its options are wrong.
  defp about({:first, server}, _options), do: %{server: server}

  defp about(nil, options), do: DefaultServer.asked(options)

  # The server that a call names; `nil` for the default one.
  defp one_server(nil, options), do: {:ok, options.server}

  defp one_server({:first, server}, %{server: nil}),
    do: Options.value("a server that is given first", :server, server)

  defp one_server({:first, server}, %{server: other}) do
    {:error,
     Error.new(
       :invalid_option,
       "two servers were given, #{inspect(server)} and server: #{inspect(other)}; give one"
     )}
  end

  # A stream before it is asked for its first chunk.
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

  # All that can be known before the stream is taken.
  defp stream_options(group, first, text, options) do
    with {:ok, options} <- Options.validate(group, options),
         {:ok, server} <- one_server(first, options),
         :ok <- enumerable(text),
         do: {:ok, server, options}
  end

  defp enumerable(text) when is_binary(text), do: with({:ok, _text} <- Check.check(text), do: :ok)

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
