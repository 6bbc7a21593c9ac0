defmodule Chatterbex.HTTP.Server.Drain do
  @moduledoc false
  # Lets connections finish before the supervisor stops them: it stops after the listener and before the connections.

  use GenServer

  alias Chatterbex.HTTP.Server.Connection

  @doc """
  `sibling` returns the pid of another child of the supervisor. It works once all children have started.
  """
  @spec start_link((atom -> pid), pos_integer) :: GenServer.on_start()
  def start_link(sibling, timeout), do: GenServer.start_link(__MODULE__, {sibling, timeout})

  @impl true
  def init({sibling, timeout}) do
    Process.flag(:trap_exit, true)
    {:ok, %{timeout: timeout, connections: nil}, {:continue, sibling}}
  end

  @impl true
  def handle_continue(sibling, state), do: {:noreply, %{state | connections: sibling.(:connections)}}

  @impl true
  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{connections: nil}), do: :ok

  def terminate(_reason, state) do
    monitors =
      for {_id, connection, _type, _modules} <- DynamicSupervisor.which_children(state.connections),
          is_pid(connection) do
        monitor = Process.monitor(connection)
        Connection.drain(connection)
        monitor
      end

    deadline = System.monotonic_time(:millisecond) + state.timeout
    Enum.each(monitors, &await(&1, deadline))
  end

  defp await(monitor, deadline) do
    receive do
      {:DOWN, ^monitor, :process, _connection, _reason} -> :ok
    after
      max(deadline - System.monotonic_time(:millisecond), 0) -> :ok
    end
  end
end
