defmodule Chatterbex.Telemetry.Log do
  @moduledoc false
  # The default logger: one line for each event that ends some work.

  require Logger

  @events for(
            span <- [:generate, :stream, :convert, :clone],
            part <- [:stop, :exception],
            do: [:chatterbex, span, part]
          ) ++
            [[:chatterbex, :model, :load, :stop], [:chatterbex, :model, :unload]]

  @spec events() :: [[atom, ...]]
  def events, do: @events

  @doc """
  Logs an event at a level; failures at least as warnings.
  """
  @spec handle([atom, ...], map, map, Logger.level()) :: :ok
  # The server has logged it.
  def handle([:chatterbex, :model, :load, :stop], _measurements, %{error: %{}}, _level), do: :ok

  def handle([:chatterbex | event], measurements, metadata, level) do
    level = if failed?(event, metadata), do: worse(level), else: level

    Logger.log(level, fn ->
      "chatterbex: #{inspect(metadata.server)} #{line(event, measurements, metadata)}"
    end)
  end

  defp failed?(event, metadata), do: List.last(event) == :exception or metadata[:error] != nil

  defp worse(level), do: if(Logger.compare_levels(level, :warning) == :lt, do: :warning, else: level)

  defp line([:model, :load, :stop], measurements, metadata),
    do: "has loaded #{inspect(metadata.model)} in #{time(measurements.duration)}"

  defp line([:model, :unload], _measurements, metadata),
    do: "has unloaded #{inspect(metadata.model)}, which was idle"

  defp line([call, :exception], measurements, metadata) do
    reason = Exception.format_banner(metadata.kind, metadata.reason, metadata.stacktrace)
    "did not end a #{call}, which raised after #{time(measurements.duration)}: #{reason}"
  end

  defp line([call, :stop], measurements, %{error: error}) when error != nil,
    do: "failed in a #{call} after #{time(measurements.duration)}: #{inspect(error.reason)}"

  defp line([:stream, :stop], measurements, metadata) do
    first = if measurements[:first_audio], do: ", the first after #{time(measurements.first_audio)}", else: ""
    how = if metadata.halted, do: "was halted in a stream after", else: "streamed"

    "#{how} #{seconds(measurements.audio_seconds)} of audio in #{measurements.chunks} chunks" <>
      first <> ", #{time(measurements.duration)} in all"
  end

  defp line([:clone, :stop], measurements, metadata) do
    "made a voice of #{seconds(measurements.seconds)} of audio with #{inspect(metadata.model)} in " <>
      time(measurements.duration)
  end

  defp line([call, :stop], measurements, metadata) do
    did = if call == :convert, do: "converted", else: "spoke"

    "#{did} #{seconds(measurements.audio_seconds)} of audio with #{inspect(metadata.model)} in #{time(measurements.duration)}"
  end

  defp time(native), do: "#{System.convert_time_unit(native, :native, :millisecond)} ms"
  defp seconds(seconds), do: :erlang.float_to_binary(seconds * 1.0, decimals: 2) <> " s"
end
