unless Code.ensure_loaded?(:telemetry) do
  defmodule :telemetry do
    @moduledoc false
    # A stand-in for the optional package :telemetry, which needs Hex: only the functions that are used here. Handlers run
    # in the process that executes the event.

    @table __MODULE__

    def attach_many(id, events, handler, config) do
      if :ets.whereis(@table) == :undefined do
        # Owned by a process that outlives every test.
        owner = spawn(fn -> table_owner() end)
        send(owner, {:ready?, self()})
        receive(do: ({^owner, :ready} -> :ok))
      end

      for event <- events, do: :ets.insert(@table, {event, id, handler, config})
      :ok
    end

    def detach(id) do
      if :ets.whereis(@table) != :undefined, do: :ets.match_delete(@table, {:_, id, :_, :_})
      :ok
    end

    def execute(event, measurements, metadata) do
      handlers = if :ets.whereis(@table) == :undefined, do: [], else: :ets.lookup(@table, event)
      for {_event, _id, handler, config} <- handlers, do: handler.(event, measurements, metadata, config)
      :ok
    end

    defp table_owner do
      :ets.new(@table, [:named_table, :public, :bag])
      receive(do: ({:ready?, asker} -> send(asker, {self(), :ready})))
      Process.hibernate(:timer, :sleep, [:infinity])
    end
  end
end

unless Code.ensure_loaded?(Telemetry.Metrics) do
  defmodule Telemetry.Metrics do
    @moduledoc false
    # Stands in for the package :telemetry_metrics: metrics as maps, made with the same arguments.

    for kind <- [:counter, :sum, :last_value, :summary, :distribution] do
      def unquote(kind)(name, options) do
        name = name |> String.split(".") |> Enum.map(&String.to_atom/1)

        Map.merge(Map.new(options), %{
          kind: unquote(kind),
          name: name,
          event_name: Enum.drop(name, -1)
        })
      end
    end
  end
end
