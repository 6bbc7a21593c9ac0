defmodule Chatterbex.HTTP.Server.Listener do
  @moduledoc false
  # Owns the listening socket, and the processes that accept connections from it.

  use GenServer

  require Logger

  alias Chatterbex.HTTP.Response
  alias Chatterbex.HTTP.Server.{Connection, Wire}

  @acceptors 4
  @backlog 1_024

  # Milliseconds to wait if the system has no file descriptors left.
  @exhausted 100

  @doc """
  `sibling` returns the pid of another child of the supervisor. It works once all children have started.
  """
  @spec start_link((atom -> pid), map) :: GenServer.on_start()
  def start_link(sibling, settings), do: GenServer.start_link(__MODULE__, {sibling, settings})

  @spec port(pid) :: :inet.port_number()
  def port(listener), do: GenServer.call(listener, :port)

  @impl true
  def init({sibling, settings}) do
    family = if tuple_size(settings.ip) == 8, do: [:inet6], else: [:inet]

    options =
      family ++
        [
          :binary,
          ip: settings.ip,
          active: false,
          packet: :raw,
          reuseaddr: true,
          nodelay: true,
          backlog: @backlog,
          buffer: 16_384,
          send_timeout: settings.send_timeout,
          send_timeout_close: true
        ]

    case :gen_tcp.listen(settings.port, options) do
      {:ok, socket} -> {:ok, %{socket: socket, settings: settings}, {:continue, sibling}}
      {:error, posix} -> {:stop, {:not_listening, settings.ip, settings.port, posix}}
    end
  end

  @impl true
  def handle_continue(sibling, state) do
    connections = sibling.(:connections)
    settings = Map.put(state.settings, :workers, sibling.(:workers))
    for _number <- 1..@acceptors, do: spawn_link(fn -> accept(state.socket, connections, settings) end)
    {:noreply, state}
  end

  @impl true
  def handle_call(:port, _from, state) do
    {:ok, port} = :inet.port(state.socket)
    {:reply, port, state}
  end

  defp accept(listener, connections, settings) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        hand_over(socket, connections, settings)
        accept(listener, connections, settings)

      # The listener has ended, and this process with it.
      {:error, :closed} ->
        :ok

      {:error, posix} when posix in [:emfile, :enfile, :enobufs, :enomem] ->
        Logger.error("no connection can be accepted: #{:inet.format_error(posix)}")
        Process.sleep(@exhausted)
        accept(listener, connections, settings)

      # A client that hung up before it was accepted.
      {:error, _posix} ->
        accept(listener, connections, settings)
    end
  end

  defp hand_over(socket, connections, settings) do
    case DynamicSupervisor.start_child(connections, Connection.child_spec({socket, settings})) do
      {:ok, connection} ->
        case :gen_tcp.controlling_process(socket, connection) do
          :ok -> Connection.begin(connection)
          {:error, _closed} -> Connection.give_up(connection)
        end

      {:error, _max_children} ->
        refuse(socket)
    end
  end

  # The answer fits the socket's buffer, so this does not block.
  defp refuse(socket) do
    response =
      Response.error(503, "too many connections are open; try again later", headers: [{"retry-after", "2"}])

    head = Wire.head(response, %{version: {1, 1}, keep: false}, IO.iodata_length(response.body))
    :gen_tcp.send(socket, [head, response.body])
    :gen_tcp.close(socket)
  end
end
