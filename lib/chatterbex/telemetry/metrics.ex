defmodule Chatterbex.Telemetry.Metrics do
  @moduledoc false
  # Metrics of the optional package :telemetry_metrics.

  alias Chatterbex.Error

  @compile {:no_warn_undefined, Telemetry.Metrics}

  @milliseconds {:native, :millisecond}

  @spec all() :: [struct]
  def all do
    if Code.ensure_loaded?(Telemetry.Metrics),
      do: Enum.map(list(), fn {kind, name, options} -> metric(kind, name, options) end),
      else:
        raise(
          Error.new(:not_supported, ~s(there are no metrics: add {:telemetry_metrics, "~> 1.0"} to your deps))
        )
  end

  # By an event's name and a measurement, as in "chatterbex.generate.stop.duration".
  defp list do
    calls =
      for call <- ["generate", "stream", "convert", "clone"] do
        [
          {:counter, "chatterbex.#{call}.stop.duration",
           result: true, description: "calls, by what came of them"},
          {:summary, "chatterbex.#{call}.stop.duration", unit: @milliseconds, result: true},
          {:counter, "chatterbex.#{call}.exception.duration",
           description: "calls in which your own code raised"}
        ]
      end

    audio =
      for call <- ["generate", "stream", "convert"],
          do: {:sum, "chatterbex.#{call}.stop.audio_seconds", unit: :second}

    List.flatten(calls) ++
      audio ++
      [
        {:summary, "chatterbex.generate.stop.rtf", description: "seconds of work per second of audio"},
        {:summary, "chatterbex.generate.stop.tokens_per_second", description: "speech tokens of T3"},
        {:summary, "chatterbex.stream.stop.first_audio",
         unit: @milliseconds, description: "the time to the first chunk"},
        {:summary, "chatterbex.queue.wait.duration", unit: @milliseconds},
        {:last_value, "chatterbex.queue.wait.waiting", description: "requests that wait"},
        {:last_value, "chatterbex.queue.wait.running", description: "pieces that the model works on"},
        {:summary, "chatterbex.model.load.stop.duration", unit: @milliseconds, result: true},
        {:counter, "chatterbex.device.fallback.system_time", description: "models that went to the CPU"},
        {:counter, "chatterbex.peer.down.system_time", description: "processes of isolated models that died"}
      ]
  end

  defp metric(kind, name, options) do
    {result?, options} = Keyword.pop(options, :result, false)
    tags = if result?, do: [:server, :model, :result], else: [:server, :model]
    apply(Telemetry.Metrics, kind, [name, [tags: tags, tag_values: &tag_values/1] ++ options])
  end

  # Reporters convert tags to strings, which does not work for a pid. A request that failed early has no model yet.
  defp tag_values(metadata) do
    %{
      server: name(metadata.server),
      model: Map.get(metadata, :model, :unknown),
      result: result(metadata)
    }
  end

  defp name(server) when is_atom(server), do: server
  defp name(server), do: inspect(server)

  defp result(%{error: %Error{reason: reason}}), do: reason
  defp result(_metadata), do: :ok
end
