defmodule Chatterbex.Telemetry do
  @moduledoc """
  The events of this library. They are sent through `:telemetry` if the application has it, and cost nothing
  otherwise.

  All durations, `since_start` too, are in native time units (`System.convert_time_unit/3`).

  ## Spans

  Work that takes time has a span, like those of `:telemetry.span/3`: `[..., :start]`, then `[..., :stop]`, or
  `[..., :exception]` if something raised. All three have `telemetry_span_context`, a reference that is the same for all
  events of one span, and `server`, the name or pid of the server.

  | span | what it covers | measurements of `:start` | further measurements of `:stop` | further metadata of `:stop` |
  |---|---|---|---|---|
  | `[:chatterbex, :generate]` | `Chatterbex.generate/2` | `characters` | `audio_seconds`, `samples`, `rtf`, `tokens_per_second` | the audio's own `metadata` |
  | `[:chatterbex, :stream]` | a stream, from the first request for a chunk to its end | `characters` | `chunks`, `audio_seconds`, `first_audio` | `model`, `halted` |
  | `[:chatterbex, :convert]` | `Chatterbex.convert/2` | | `seconds`, `audio_seconds`, `rtf` | the audio's own `metadata` |
  | `[:chatterbex, :clone]` | `Chatterbex.Voice.clone/2` | | `seconds` (of the recording) | `model` |
  | `[:chatterbex, :model, :load]` | loading a model | | | `model`, `device` |
  | `[:chatterbex, :model, :download]` | fetching a model's files; without `server` | | `fetched` (bytes that arrived), `total` | `model`, `version`, `language_pack`, `revision`, `folder` |

  Every `:start` has the measurements `system_time` and `monotonic_time`. Every `:stop` and `:exception` has `duration` and
  `monotonic_time`.

  A result `{:error, error}` is a `:stop` too, with the `Chatterbex.Error` as `error` in its metadata; otherwise `error` is
  `nil`. The `:stop` of an error has only `duration`; that of a stream also has what was measured before the error. An
  `:exception` means that a `:progress` function or the source of a text raised. It has `kind`, `reason` and `stacktrace`.

  `characters` is missing if the text is an Enumerable. `first_audio` is the time to the first chunk. `halted` is true for a
  stream that its consumer ended early or that was cancelled. `rtf` is seconds of work per second of audio.
  `tokens_per_second` is the speed of T3, if the model reports it. The span of a killed process does not end.

  ## Single events

  | event | measurements | metadata |
  |---|---|---|
  | `[:chatterbex, :stream, :chunk]` | `number`, `audio_seconds`, `since_start` | `server`, `model`, `telemetry_span_context` |
  | `[:chatterbex, :queue, :wait]` | `duration`, `waiting`, `running` | `server`, `model`, `priority` |
  | `[:chatterbex, :model, :unload]` | `system_time` | `server`, `model`, `device`, `reason: :idle` |
  | `[:chatterbex, :model, :download, :progress]` | `bytes` of `total`, `file_bytes` of `file_total` | those of the span, `repository`, `file`, `status`, `message` |
  | `[:chatterbex, :peer, :down]` | `system_time`, `requests` (open ones that wait for the next process), `died` (how often) | `server`, `model`, `reason` |
  | `[:chatterbex, :device, :fallback]` | `system_time` | `server`, `model`, `from`, `to`, `reason` |

  What to do about them:

  - `[:chatterbex, :queue, :wait]` grows: one model cannot keep up. Raise `:max_batch` if the device is faster with larger
    batches, start a second server on another node, or lower `:max_queue` to refuse requests earlier.
  - `[:chatterbex, :generate, :stop]` with `error.reason == :overloaded`: the same, seen by callers.
  - `[:chatterbex, :device, :fallback]`: the model runs on the CPU from now on. `reason` says why, and `Chatterbex.info/1`
    shows it too.
  - `[:chatterbex, :model, :unload]`: the model had nothing to do for the server's `:idle` time. If loads follow soon and
    often, raise `:idle`: each load makes a request wait.
  - `[:chatterbex, :stream, :chunk]` with `number: 0`: `since_start` is the time to the first audio. If later chunks have
    a `since_start` above the `audio_seconds` before them, playback runs dry: use a faster device or a smaller model.

  `waiting` counts waiting requests, and `running` the pieces that the model is working on. `number` counts chunks from 0.
  `since_start` is the time since the first chunk was requested.

  `generate`, `convert`, `clone` and `download` events are sent in the calling process, `stream` events in the process
  that consumes the stream (one of the library's own for `Chatterbex.stream_to/3`), and all others in the server's process.

      :telemetry.attach("speech", [:chatterbex, :generate, :stop], &MyApp.Speech.handle/4, nil)

      def handle(_event, measurements, %{error: nil}, _config), do: IO.puts("spoke \#{measurements.audio_seconds} s")
      def handle(_event, _measurements, %{error: error}, _config), do: IO.puts(error.message)

  `metrics/0` has metrics for reporters, and `attach_default_logger/1` writes lines to the log.
  """

  alias Chatterbex.Error
  alias Chatterbex.Telemetry.{Log, Metrics}

  @spans [
    [:chatterbex, :generate],
    [:chatterbex, :stream],
    [:chatterbex, :convert],
    [:chatterbex, :clone],
    [:chatterbex, :model, :load],
    [:chatterbex, :model, :download]
  ]

  @single [
    [:chatterbex, :stream, :chunk],
    [:chatterbex, :queue, :wait],
    [:chatterbex, :model, :unload],
    [:chatterbex, :model, :download, :progress],
    [:chatterbex, :peer, :down],
    [:chatterbex, :device, :fallback]
  ]

  @events for(span <- @spans, part <- [:start, :stop, :exception], do: span ++ [part]) ++ @single

  @typep event :: [atom, ...]
  @typep span :: %{prefix: event, started: integer, metadata: map}

  @doc """
  The names of all events, to attach to.

  ## Examples

      iex> [:chatterbex, :generate, :stop] in Chatterbex.Telemetry.events()
      true
  """
  @spec events() :: [[atom, ...], ...]
  def events, do: @events

  @doc """
  Returns metrics for the reporters of `Telemetry.Metrics`: how long speech and its first sound take, how fast the model
  is, the queue, errors by their reason, fallbacks and crashes.

  The tags are `:server`, `:model` and, for calls that may fail, `:result`: `:ok` or the error's reason.

  You need the package `:telemetry_metrics`, which Phoenix includes. Without it the function raises `Chatterbex.Error`.

  ## Examples

      # In the Telemetry module of a Phoenix application:
      def metrics, do: Chatterbex.Telemetry.metrics() ++ [summary("phoenix.endpoint.stop.duration", ...)]
  """
  @spec metrics() :: [struct]
  def metrics, do: Metrics.all()

  @doc """
  Logs a line for each text that is spoken or streamed, each recording that is converted or cloned, and each model that
  is loaded or unloaded. The lines never contain your texts.

  Fallbacks, crashes and models that cannot be loaded are always logged, with or without this handler.

  ## Options

  #{Chatterbex.Options.Schema.docs(:logger)}

  Attaching again changes the level. Errors: `:invalid_option`; `:not_supported` if the application lacks `:telemetry`.

  ## Examples

      # In your application's start/2:
      :ok = Chatterbex.Telemetry.attach_default_logger(level: :debug)

      iex> {:error, error} = Chatterbex.Telemetry.attach_default_logger(level: :loud)
      iex> error.message
      "option :level must be one of :debug, :info, :notice, :warning, :error, got :loud"
  """
  @spec attach_default_logger(keyword) :: :ok | {:error, Error.t()}
  def attach_default_logger(options \\ []) do
    with {:ok, %{level: level}} <- Chatterbex.Options.validate(:logger, options), :ok <- present() do
      detach_default_logger()
      :telemetry.attach_many(Log, Log.events(), &Log.handle/4, level)
    end
  end

  @doc """
  Detaches the logger of `attach_default_logger/1`. Does nothing if it is not attached.

  ## Examples

      iex> Chatterbex.Telemetry.detach_default_logger()
      :ok
  """
  @spec detach_default_logger() :: :ok
  def detach_default_logger do
    if available?(), do: :telemetry.detach(Log)
    :ok
  end

  defp present do
    if available?(),
      do: :ok,
      else:
        {:error, Error.new(:not_supported, ~s(there are no events: add {:telemetry, "~> 1.0"} to your deps))}
  end

  @doc false
  @spec execute(event, map, map) :: :ok
  def execute(event, measurements, metadata) when event in @events do
    if available?(), do: :telemetry.execute(event, measurements, metadata), else: :ok
  end

  # Runs `work`, which returns `{:ok, value, measurements, metadata}` or `{:error, error}`, as a span.
  @doc false
  @spec span(event, map, map, (... -> {:ok, term, map, map} | {:error, Error.t()})) ::
          {:ok, term} | {:error, Error.t()}
  def span(prefix, measurements, metadata, work) do
    span = start(prefix, measurements, metadata)

    case guard(span, work) do
      {:ok, value, measurements, more} ->
        stop(span, measurements, Map.put(more, :error, nil))
        {:ok, value}

      {:error, error} ->
        stop(span, %{}, %{error: error})
        {:error, error}
    end
  end

  # A span that `stop/3` or `exception/5` ends, for work that is not a single call.
  @doc false
  @spec start(event, map, map) :: span
  def start(prefix, measurements, metadata) when prefix in @spans do
    started = System.monotonic_time()
    metadata = Map.put(metadata, :telemetry_span_context, make_ref())
    times = %{system_time: System.system_time(), monotonic_time: started}
    execute(prefix ++ [:start], Map.merge(measurements, times), metadata)
    %{prefix: prefix, started: started, metadata: metadata}
  end

  @doc false
  @spec stop(span, map, map) :: :ok
  def stop(span, measurements, metadata) do
    execute(span.prefix ++ [:stop], Map.merge(measurements, ended(span)), Map.merge(metadata, span.metadata))
  end

  @doc false
  @spec exception(span, map, atom, term, list) :: :ok
  def exception(span, measurements, kind, reason, stacktrace) do
    metadata = Map.merge(span.metadata, %{kind: kind, reason: reason, stacktrace: stacktrace})
    execute(span.prefix ++ [:exception], Map.merge(measurements, ended(span)), metadata)
  end

  # Ends the span where `work` raises.
  @doc false
  @spec guard(span, (... -> result)) :: result when result: term
  def guard(span, work) do
    work.()
  catch
    kind, reason ->
      exception(span, %{}, kind, reason, __STACKTRACE__)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp ended(span) do
    now = System.monotonic_time()
    %{duration: now - span.started, monotonic_time: now}
  end

  # Cached: without :telemetry, looking for it on every event would search the whole code path.
  defp available? do
    case :persistent_term.get(__MODULE__, :unknown) do
      :unknown ->
        loaded? = Code.ensure_loaded?(:telemetry)
        :persistent_term.put(__MODULE__, loaded?)
        loaded?

      loaded? ->
        loaded?
    end
  end

  @compile {:no_warn_undefined, :telemetry}
end
