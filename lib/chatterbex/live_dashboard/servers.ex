defmodule Chatterbex.LiveDashboard.Servers do
  @moduledoc false
  # The rows of the page, which needs LiveDashboard; this does not.

  alias Chatterbex.Telemetry.Recent

  @timeout 5_000

  @doc """
  The servers of a node, as the table of the page asks for them: `{rows, how many there are}`.
  """
  @spec fetch(map, node) :: {[map], non_neg_integer}
  def fetch(params, node) do
    rows = if node == node(), do: rows(), else: :erpc.call(node, __MODULE__, :rows, [], @timeout)
    found = Enum.filter(rows, &found?(&1, params.search))

    # What was not measured comes last.
    {unknown, known} = Enum.split_with(found, &(&1[params.sort_by] == nil))
    sorted = Enum.sort_by(known, & &1[params.sort_by], params.sort_dir)
    {Enum.take(sorted ++ unknown, params.limit), length(found)}
  end

  defp found?(_row, nil), do: true

  defp found?(row, search),
    do: String.contains?(String.downcase("#{row.name} #{row.model}"), String.downcase(search))

  @doc """
  The rows of this node.
  """
  @spec rows() :: [map]
  def rows, do: rows(Recent.all())

  @spec rows([Recent.figures()]) :: [map]
  def rows(figures) do
    figures
    |> Task.async_stream(&row/1,
      ordered: false,
      max_concurrency: 20,
      timeout: @timeout,
      on_timeout: :kill_task
    )
    |> Enum.flat_map(fn
      {:ok, row} -> [row]
      {:exit, _timeout} -> []
    end)
  end

  defp row(figures), do: figures |> Map.put(:name, inspect(figures.server)) |> Map.merge(now(figures.server))

  defp now(server) do
    case Chatterbex.info(server: server) do
      {:ok, info} ->
        %{
          model: inspect(info.model),
          status: info.status,
          device: device(info.device),
          open: info.queue.open,
          waiting: info.queue.waiting,
          running: info.queue.running
        }

      {:error, error} ->
        %{model: nil, status: error.reason, device: nil, open: nil, waiting: nil, running: nil}
    end
  end

  defp device(%{requested: requested, actual: actual}) when requested in [actual, :auto], do: show(actual)
  defp device(%{actual: nil, requested: requested}), do: show(requested)
  defp device(device), do: "#{show(device.actual)} instead of #{show(device.requested)}"

  defp show(nil), do: nil
  defp show(device) when is_atom(device), do: Atom.to_string(device)
  defp show(device), do: inspect(device)

  @doc """
  A number with the given digits after the decimal point.
  """
  @spec figure(number | nil, 0..10) :: String.t()
  def figure(nil, _decimals), do: ""
  def figure(number, decimals), do: :erlang.float_to_binary(number * 1.0, decimals: decimals)
end
