defmodule Chatterbex.Test.Ledger do
  @moduledoc false
  # The requests to servers for tests, and their stubs, by the processes that made the requests. The first process that
  # needs it starts it.

  use GenServer, restart: :temporary

  @supervisor Chatterbex.DefaultServerSupervisor
  @max 10_000

  @typedoc "A process that asks, or all of them."
  @type owner :: pid | :anyone

  @doc """
  Records a piece of a request, and returns the stub for its callers. `callers` starts with the calling process.
  """
  @spec ask(reference, [pid], map, String.t() | nil) :: {map, term}
  def ask(ref, callers, request, piece), do: call({:ask, ref, callers, request, piece})

  @spec requests(owner) :: [map]
  def requests(owner), do: call({:requests, owner})

  @spec stub(owner, term) :: :ok
  def stub(owner, answer), do: call({:stub, owner, answer})

  defp call(question) do
    with {:error, reason} when reason != :already_started <- start(),
         do: raise("no ledger: #{inspect(reason)}")

    GenServer.call(__MODULE__, question)
  end

  defp start do
    if GenServer.whereis(__MODULE__) do
      :ok
    else
      case DynamicSupervisor.start_child(@supervisor, __MODULE__) do
        {:ok, _ledger} -> :ok
        {:error, {:already_started, _ledger}} -> :ok
        other -> other
      end
    end
  end

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # Requests by their reference, and in the order in which they came, newest first.
  @impl true
  def init([]), do: {:ok, %{order: [], requests: %{}, stubs: %{}, watched: MapSet.new()}}

  @impl true
  def handle_call({:ask, ref, callers, request, piece}, _from, state) do
    state = state |> watch(List.last(callers)) |> note(ref, callers, request, piece)
    stub = Enum.find_value(callers ++ [:anyone], :tone, &state.stubs[&1])
    {:reply, {elem(state.requests[ref], 1), stub}, state}
  end

  def handle_call({:requests, owner}, _from, state) do
    requests =
      for ref <- Enum.reverse(state.order),
          {callers, request} = state.requests[ref],
          owner == :anyone or owner in callers,
          do: request

    {:reply, requests, state}
  end

  def handle_call({:stub, owner, answer}, _from, state),
    do: {:reply, :ok, %{watch(state, owner) | stubs: Map.put(state.stubs, owner, answer)}}

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state) do
    {gone, order} = Enum.split_with(state.order, &(state.requests[&1] |> elem(0) |> List.last() == pid))

    {:noreply,
     %{
       state
       | order: order,
         requests: Map.drop(state.requests, gone),
         stubs: Map.delete(state.stubs, pid),
         watched: MapSet.delete(state.watched, pid)
     }}
  end

  # A string is known at once; the text of an Enumerable arrives piece by piece.
  defp note(state, ref, callers, request, piece) do
    case state.requests do
      %{^ref => {callers, %{text: text} = noted}} ->
        text = if request.text == nil and piece, do: "#{text} #{piece}", else: text
        put_in(state.requests[ref], {callers, %{noted | text: text}})

      _new ->
        request = %{request | text: request.text || piece}

        state = %{
          state
          | order: [ref | state.order],
            requests: Map.put(state.requests, ref, {callers, request})
        }

        if map_size(state.requests) > @max, do: drop_oldest(state), else: state
    end
  end

  # A tenth at a time, because the order is a list.
  defp drop_oldest(state) do
    {order, old} = Enum.split(state.order, div(@max * 9, 10))
    %{state | order: order, requests: Map.drop(state.requests, old)}
  end

  defp watch(state, :anyone), do: state

  defp watch(state, pid) do
    if pid in state.watched do
      state
    else
      Process.monitor(pid)
      %{state | watched: MapSet.put(state.watched, pid)}
    end
  end
end
