defmodule Chatterbex.Peer.Guest do
  @moduledoc false
  # Runs in the process of an isolated model: it receives commands from the VM that started it, and sends back the events
  # of the model thread. It ends its process when that VM is gone or the connection fails.

  use GenServer

  alias Chatterbex.Runtime
  alias Chatterbex.Peer.Frame

  @doc """
  The configuration for the guest: that of the calling VM.
  """
  @spec settings() :: map
  def settings,
    do: %{environment: Application.get_all_env(:chatterbex), level: Logger.level()}

  @doc """
  Called in the guest: connects to the VM that started it, with the port and token that it gave.
  """
  @spec start(:inet.port_number(), binary, map) :: :ok | {:error, String.t()}
  def start(port, token, settings) do
    # A guest has nothing to finish: SIGTERM ends it like any other signal, and its server starts the next.
    :ok = :os.set_signal(:sigterm, :default)
    Application.load(:chatterbex)
    Application.put_all_env([{:chatterbex, settings.environment}], persistent: true)
    {:ok, _started} = Application.ensure_all_started(:chatterbex)
    Logger.configure(level: settings.level)

    with {:ok, _guest} <- GenServer.start(__MODULE__, {port, token}, name: __MODULE__), do: :ok
  end

  @impl true
  def init({port, token}) do
    Process.flag(:trap_exit, true)
    options = [:binary, packet: 4, active: false, nodelay: true, sndbuf: 1_048_576, recbuf: 1_048_576]

    case :gen_tcp.connect({127, 0, 0, 1}, port, options, 10_000) do
      {:ok, socket} ->
        :ok = :gen_tcp.send(socket, token)
        :ok = :inet.setopts(socket, active: true)
        log_to(self())
        state = %{socket: socket}
        tell(state, {:up, System.pid()})
        {:ok, state}

      {:error, reason} ->
        {:stop, "it cannot reach this VM on the loopback interface: #{:inet.format_error(reason)}"}
    end
  end

  # Log events of this VM belong in the log of the other.
  defp log_to(guest) do
    Logger.remove_backend(:console)
    _ok_or_not_there = :logger.remove_handler(:default)
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{guest: guest}})
  end

  @doc false
  @spec log(map, map) :: :ok
  def log(%{level: level, msg: message, meta: meta}, %{config: %{guest: guest}}) do
    text =
      case message do
        {:string, text} -> IO.chardata_to_string(text)
        {:report, report} -> inspect(report, limit: 50)
        {format, arguments} -> format |> :io_lib.format(arguments) |> IO.chardata_to_string()
      end

    if Map.get(meta, :pid) != guest, do: send(guest, {:log, level, text})
    :ok
  rescue
    # A handler that raises is removed.
    _malformed -> :ok
  end

  @impl true
  def handle_info({:tcp, socket, frame}, %{socket: socket} = state) do
    frame |> Frame.decode() |> obey(state)
    {:noreply, state}
  end

  def handle_info({:chatterbex_event, id, event, payload}, state) do
    tell(state, {:event, id, event, payload})
    {:noreply, state}
  end

  def handle_info({:log, level, text}, state) do
    tell(state, {:log, level, text})
    {:noreply, state}
  end

  def handle_info({:python, result}, state) do
    tell(state, {:python, result})
    {:noreply, state}
  end

  def handle_info({closed, socket}, %{socket: socket} = state) when closed == :tcp_closed,
    do: {:stop, :normal, state}

  def handle_info({:tcp_error, socket, _reason}, %{socket: socket} = state), do: {:stop, :normal, state}
  def handle_info(_other, state), do: {:noreply, state}

  defp obey({:submit, command}, state) do
    with {:error, error} <- Runtime.submit(command) do
      payload = %{
        "reason" => Atom.to_string(error.reason),
        "message" => error.message,
        "details" => error.details
      }

      tell(state, {:event, command["id"], "failed", payload})
    end
  end

  defp obey(:ping, state), do: tell(state, :pong)
  defp obey({:cancel, id}, _state), do: Runtime.cancel(id)

  # Python takes a while to start, and cancels must not wait.
  defp obey({:start_python, options}, _state) do
    guest = self()
    spawn_link(fn -> send(guest, {:python, Runtime.start_python(options)}) end)
  end

  defp tell(%{socket: socket}, message) do
    case :gen_tcp.send(socket, Frame.encode(message)) do
      :ok -> :ok
      {:error, _reason} -> :erlang.halt(1, flush: false)
    end
  end

  # Without the VM that asked for it there is nothing to do here, and nothing worth flushing.
  @impl true
  def terminate(_reason, _state), do: :erlang.halt(1, flush: false)
end
