defmodule Chatterbex.Telemetry do
  @moduledoc """
  The events of this library. They are sent through `:telemetry` where the application has it, and cost
  nothing where it has not.

  All durations, `since_start` too, are in native time units (`System.convert_time_unit/3`).

  | event | measurements | metadata |
  |---|---|---|
  | `[:chatterbex, :generate, :start]` | `system_time`, `characters` | `server` |
  | `[:chatterbex, :generate, :stop]` | `duration`, `audio_seconds`, `samples` | `server`, and the audio's own `metadata` |
  | `[:chatterbex, :generate, :exception]` | `duration` | `server`, `kind: :error`, `reason: %Chatterbex.Error{}`, `stacktrace: []` |
  | `[:chatterbex, :convert, :start]` | `system_time`, `seconds` | `server` |
  | `[:chatterbex, :convert, :stop]` | `duration`, `audio_seconds` | `server`, and the audio's own `metadata` |
  | `[:chatterbex, :convert, :exception]` | `duration` | `server`, `kind: :error`, `reason: %Chatterbex.Error{}`, `stacktrace: []` |
  | `[:chatterbex, :stream, :chunk]` | `number`, `audio_seconds`, `since_start` | `server`, `model` |
  | `[:chatterbex, :queue, :wait]` | `duration`, `waiting`, `running` | `server`, `model`, `priority` |
  | `[:chatterbex, :model, :load, :start]` | `system_time` | `server`, `model`, `device` |
  | `[:chatterbex, :model, :load, :stop]` | `duration` | `server`, `model`, `device` |
  | `[:chatterbex, :model, :load, :exception]` | `duration` | `server`, `model`, `device`, `kind: :error`, `reason: %Chatterbex.Error{}`, `stacktrace: []` |
  | `[:chatterbex, :model, :unload]` | `system_time` | `server`, `model`, `device`, `reason: :idle` |
  | `[:chatterbex, :model, :download, :start]` | `system_time` | `model`, `version`, `language_pack`, `revision` |
  | `[:chatterbex, :model, :download, :progress]` | `bytes` of `total`, `file_bytes` of `file_total` | the same, `repository`, `file`, `status`, `message` |
  | `[:chatterbex, :model, :download, :stop]` | `duration`, `fetched` (bytes that came), `total` | the same as at the start, `folder` |
  | `[:chatterbex, :model, :download, :exception]` | `duration` | the same as at the start, `kind: :error`, `reason: %Chatterbex.Error{}`, `stacktrace: []` |
  | `[:chatterbex, :peer, :down]` | `system_time`, `requests` (open ones that wait for the next process), `died` (how often) | `server`, `model`, `reason` |
  | `[:chatterbex, :device, :fallback]` | `system_time` | `server`, `model`, `from`, `to`, `reason` |

  What to do about them:

  - `[:chatterbex, :queue, :wait]` growing: one model cannot keep up. Raise `:max_batch` where the device
    gains from it, start a second server on another node, or lower `:max_queue` to refuse earlier.
  - `[:chatterbex, :generate, :exception]` with `reason.reason == :overloaded`: the same, seen by callers.
  - `[:chatterbex, :device, :fallback]`: the model works on the CPU from now on; `reason` says why, and
    `Chatterbex.info/1` keeps saying it.

  - `[:chatterbex, :model, :unload]`: the model had nothing to do for the server's `:idle` time. If loads follow soon and
    often, raise `:idle`: each of them makes a request wait.

  - `[:chatterbex, :stream, :chunk]` with `number: 0`: `since_start` is the time to the first audio. Where later chunks have
    a `since_start` above the `audio_seconds` before them, playback starves: use a faster device or a smaller model.

  `waiting` and `running` count requests that wait and pieces that the model works on. `number` counts chunks from 0,
  and `since_start` is the time since the stream was first asked for one.

  `generate`, `stream` and `download` events are sent in the calling process, all others in the server's.

      :telemetry.attach("speech", [:chatterbex, :generate, :stop], fn _event, measurements, _meta, _config ->
        IO.puts("spoke \#{measurements.audio_seconds} s")
      end, nil)
  """

  @events [
    [:chatterbex, :generate, :start],
    [:chatterbex, :generate, :stop],
    [:chatterbex, :generate, :exception],
    [:chatterbex, :convert, :start],
    [:chatterbex, :convert, :stop],
    [:chatterbex, :convert, :exception],
    [:chatterbex, :stream, :chunk],
    [:chatterbex, :queue, :wait],
    [:chatterbex, :model, :load, :start],
    [:chatterbex, :model, :load, :stop],
    [:chatterbex, :model, :load, :exception],
    [:chatterbex, :model, :unload],
    [:chatterbex, :model, :download, :start],
    [:chatterbex, :model, :download, :progress],
    [:chatterbex, :model, :download, :stop],
    [:chatterbex, :model, :download, :exception],
    [:chatterbex, :peer, :down],
    [:chatterbex, :device, :fallback]
  ]

  @doc """
  All events' names, to attach to.

  ## Examples

      iex> [:chatterbex, :generate, :stop] in Chatterbex.Telemetry.events()
      true
  """
  @spec events() :: [[atom, ...], ...]
  def events, do: @events

  @doc false
  @spec execute([atom, ...], map, map) :: :ok
  def execute(event, measurements, metadata) when event in @events do
    if available?(), do: :telemetry.execute(event, measurements, metadata), else: :ok
  end

  # Runs `work`, which returns `{:ok, value, measurements, metadata}` or `{:error, error}`.
  @doc false
  @spec span([atom, ...], map, map, (() -> {:ok, term, map, map} | {:error, Chatterbex.Error.t()})) ::
          {:ok, term} | {:error, Chatterbex.Error.t()}
  def span(prefix, measurements, metadata, work) do
    started = System.monotonic_time()
    execute(prefix ++ [:start], Map.put(measurements, :system_time, System.system_time()), metadata)

    case work.() do
      {:ok, value, measurements, more} ->
        stop(prefix, started, measurements, Map.merge(more, metadata))
        {:ok, value}

      {:error, error} ->
        exception(prefix, started, metadata, error)
        {:error, error}
    end
  end

  @doc false
  @spec stop([atom, ...], integer, map, map) :: :ok
  def stop(prefix, started, measurements, metadata) do
    duration = System.monotonic_time() - started
    execute(prefix ++ [:stop], Map.put(measurements, :duration, duration), metadata)
  end

  @doc false
  @spec exception([atom, ...], integer, map, Chatterbex.Error.t()) :: :ok
  def exception(prefix, started, metadata, error) do
    duration = System.monotonic_time() - started
    metadata = Map.merge(metadata, %{kind: :error, reason: error, stacktrace: []})
    execute(prefix ++ [:exception], %{duration: duration}, metadata)
  end

  # Asked once: where the application lacks :telemetry, looking for it on every event would search the
  # whole code path.
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
