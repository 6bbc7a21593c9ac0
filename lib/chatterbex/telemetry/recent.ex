defmodule Chatterbex.Telemetry.Recent do
  @moduledoc false
  # Recent figures of the servers of this node, from their events, for the page of LiveDashboard. It runs on the node
  # of that page.

  use GenServer

  @table __MODULE__

  @ends for(call <- [:generate, :stream, :convert, :clone], do: [:chatterbex, call, :stop])
  @events @ends ++
            [
              [:chatterbex, :model, :load, :start],
              [:chatterbex, :device, :fallback],
              [:chatterbex, :peer, :down]
            ]

  # The page shows the median of this number of calls, and the figures of this number of servers, the latest ones.
  @calls 100
  @max_servers 200

  @new %{calls: 0, errors: 0, fallbacks: 0, crashes: 0, first_audio: [], rtf: [], tokens_per_second: []}

  @typedoc """
  Counts since the start, and medians of the last calls: `first_audio` in milliseconds. A figure without a measurement is `nil`.
  """
  @type figures :: %{
          server: Chatterbex.server(),
          calls: non_neg_integer,
          errors: non_neg_integer,
          fallbacks: non_neg_integer,
          crashes: non_neg_integer,
          first_audio: float | nil,
          rtf: float | nil,
          tokens_per_second: float | nil
        }

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options \\ []),
    do: GenServer.start_link(__MODULE__, nil, name: Keyword.get(options, :name, __MODULE__))

  @doc """
  The figures of all servers that sent events.
  """
  @spec all(GenServer.server()) :: [figures]
  def all(recent \\ @table), do: GenServer.call(recent, :all)

  @impl true
  def init(nil) do
    # So that terminate/2 detaches the handlers.
    Process.flag(:trap_exit, true)
    :telemetry.attach_many({__MODULE__, self()}, @events, &__MODULE__.handle/4, self())
    {:ok, %{}}
  end

  # This runs in the process that does the work, so it does as little as possible.
  @doc false
  @spec handle([atom, ...], map, map, pid) :: :ok
  def handle([:chatterbex | event], measurements, metadata, recent) do
    kept = Map.take(measurements, [:first_audio, :rtf, :tokens_per_second])
    GenServer.cast(recent, {event, metadata.server, kept, metadata[:error] != nil})
  end

  @impl true
  def handle_cast({event, server, measurements, failed?}, servers) do
    figures = servers |> Map.get(server, @new) |> count(event, failed?) |> keep(measurements)
    {:noreply, servers |> Map.put(server, Map.put(figures, :heard, System.monotonic_time())) |> bounded()}
  end

  defp count(figures, [:device, :fallback], _failed?), do: add(figures, :fallbacks)
  defp count(figures, [:peer, :down], _failed?), do: add(figures, :crashes)
  defp count(figures, [:model, :load, :start], _failed?), do: figures
  defp count(figures, [_call, :stop], true), do: figures |> add(:calls) |> add(:errors)
  defp count(figures, [_call, :stop], false), do: add(figures, :calls)

  defp add(figures, name), do: Map.update!(figures, name, &(&1 + 1))

  defp keep(figures, measurements) do
    Enum.reduce(measurements, figures, fn {name, value}, figures ->
      Map.update!(figures, name, &Enum.take([value | &1], @calls))
    end)
  end

  # Servers without a name are known by their pids, so their number has no bound.
  defp bounded(servers) when map_size(servers) <= @max_servers, do: servers

  defp bounded(servers) do
    {oldest, _figures} = Enum.min_by(servers, fn {_server, figures} -> figures.heard end)
    Map.delete(servers, oldest)
  end

  @impl true
  def handle_call(:all, _from, servers) do
    {:reply, Enum.map(servers, fn {server, figures} -> shown(server, figures) end), servers}
  end

  defp shown(server, figures) do
    figures
    |> Map.delete(:heard)
    |> Map.merge(%{
      server: server,
      first_audio:
        median(Enum.map(figures.first_audio, &(&1 / System.convert_time_unit(1, :millisecond, :native)))),
      rtf: median(figures.rtf),
      tokens_per_second: median(figures.tokens_per_second)
    })
  end

  defp median([]), do: nil
  defp median(values), do: values |> Enum.sort() |> Enum.at(div(length(values), 2))

  @impl true
  def terminate(_reason, _servers), do: :telemetry.detach({__MODULE__, self()})

  @compile {:no_warn_undefined, :telemetry}
end
