defmodule Chatterbex.Peer do
  @moduledoc false
  # An engine in its own operating system process: a second VM, started by OTP's :peer, that runs Python and one
  # server's model. `Chatterbex.Peer.Guest` is the other side.
  #
  # OTP's connection over standard input and output starts the guest, sees its exit status, and ends it when this VM
  # ends. Commands, events and audio go over a separate socket on the loopback interface, one frame each. The guest
  # proves with a token that it is the one that was started.
  #
  # The owner, which is linked, gets the events of its commands as it would from the engine of its own VM, and
  # `{:peer_up, peer, os_pid}` once. When the guest is gone, the peer exits with `{:shutdown, {:peer_down, reason}}`,
  # after the last event that arrived.

  use GenServer, restart: :temporary, shutdown: 5_000

  require Logger

  @compile {:no_warn_undefined, :peer}

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Peer.{CommandLine, Frame, Guest}

  # Milliseconds for a guest to boot, and for the other half of what tells its end to arrive.
  @boot_timeout 60_000
  @last_words 1_000

  # The milliseconds between two pings of a guest, and the number of unanswered pings after which it counts as hung. Pings
  # are counted and not time, because a sleeping machine sends none.
  @heartbeat 5_000
  @unanswered 6

  @typedoc """
  How a guest ended: its exit status (128 and more for a signal, as in a shell), or what went wrong with it.
  """
  @type reason :: {:exit_status, non_neg_integer} | {:failed, String.t()}

  @doc """
  Whether a server with these options can have a guest, if it wants one.
  """
  @spec available(map) :: :ok | {:error, Error.t()}
  def available(%{isolation: :none, memory_limit: nil}), do: :ok

  def available(%{isolation: :none}) do
    {:error,
     Error.new(
       :invalid_option,
       "option :memory_limit needs isolation: :peer: a model in this VM shares the VM's memory"
     )}
  end

  def available(options) do
    if Code.ensure_loaded?(:peer) do
      with {:ok, _command} <- CommandLine.new(options.memory_limit), do: :ok
    else
      {:error,
       Error.new(:not_supported, "isolation: :peer needs OTP 25 or later, which has the module :peer")}
    end
  end

  @doc """
  Starts a guest in the background, linked to the calling process. `:memory_limit` is in bytes, or `nil`.
  """
  @spec start_link(%{memory_limit: pos_integer | nil}) :: {:ok, pid}
  def start_link(options), do: GenServer.start_link(__MODULE__, {self(), options})

  @doc """
  Starts Python in the guest; see `Chatterbex.Runtime.start_python/1`. `:peer_down` says that the guest has ended, which
  the owner is told too.
  """
  @spec start_python(pid, map) :: {:ok, map} | {:error, Error.t() | :peer_down}
  def start_python(peer, options) do
    GenServer.call(peer, {:start_python, options}, :infinity)
  catch
    :exit, _ended -> {:error, :peer_down}
  end

  @doc """
  Gives a command to the guest's model thread. What goes wrong comes as an event.
  """
  @spec submit(pid, map) :: :ok
  def submit(peer, command), do: GenServer.cast(peer, {:frame, {:submit, command}})

  @spec cancel(pid, pos_integer) :: :ok
  def cancel(peer, id), do: GenServer.cast(peer, {:frame, {:cancel, id}})

  @doc """
  Ends a guest at once.
  """
  @spec stop(pid) :: :ok
  def stop(peer) do
    GenServer.stop(peer, :shutdown, 20_000)
  catch
    :exit, _gone -> :ok
  end

  @impl true
  def init({owner, options}) do
    Process.flag(:trap_exit, true)

    # What the guest prints goes to the group leader, and that of the process which started the server may end before.
    if user = Process.whereis(:user), do: Process.group_leader(self(), user)

    state = %{
      owner: owner,
      options: options,
      peer: nil,
      listener: nil,
      socket: nil,
      token: nil,
      os_pid: nil,
      timer: nil,
      down: nil,
      python: nil,
      starter: nil,
      waiting: [],
      unanswered: 0
    }

    {:ok, state, {:continue, :boot}}
  end

  @impl true
  def handle_continue(:boot, state) do
    with {:ok, command} <- CommandLine.new(state.options.memory_limit),
         {:ok, listener} <- listen(),
         {:ok, port} <- :inet.port(listener),
         state = %{state | listener: listener, token: :crypto.strong_rand_bytes(32)},
         {:ok, peer} <- :peer.start_link(start_options(command)) do
      accept(listener, state.token)
      timer = Process.send_after(self(), :boot_timeout, @boot_timeout)
      {:noreply, %{state | peer: peer, timer: timer, waiting: [{:boot, port} | state.waiting]}}
    else
      {:error, %Error{} = error} -> {:stop, failed(error.message), state}
      {:error, reason} -> {:stop, failed("it cannot be started: #{Options.Schema.show(reason)}"), state}
    end
  end

  defp start_options(command) do
    Map.merge(command, %{
      connection: :standard_io,
      peer_down: :crash,
      shutdown: :close,
      wait_boot: {self(), :booted}
    })
  end

  defp listen do
    :gen_tcp.listen(0, [
      :binary,
      packet: 4,
      active: false,
      nodelay: true,
      send_timeout: 10_000,
      send_timeout_close: true,
      ip: {127, 0, 0, 1},
      sndbuf: 1_048_576,
      recbuf: 1_048_576
    ])
  end

  # Anyone else that connects to the port is rejected.
  defp accept(listener, token) do
    peer = self()
    spawn_link(fn -> accept(listener, token, peer) end)
  end

  defp accept(listener, token, peer) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      case :gen_tcp.recv(socket, 0, 5_000) do
        {:ok, said} when byte_size(said) == byte_size(token) ->
          if :crypto.hash_equals(said, token),
            do: hand_over(socket, peer),
            else: again(socket, listener, token, peer)

        _other ->
          again(socket, listener, token, peer)
      end
    end
  end

  defp again(socket, listener, token, peer) do
    :gen_tcp.close(socket)
    accept(listener, token, peer)
  end

  defp hand_over(socket, peer) do
    with :ok <- :gen_tcp.controlling_process(socket, peer), do: send(peer, {:connected, socket})
  end

  @impl true
  def handle_call({:start_python, options}, from, %{socket: nil} = state),
    do: {:noreply, %{state | waiting: [{:python, options, from} | state.waiting]}}

  def handle_call({:start_python, options}, from, state) do
    tell(state, {:start_python, options})
    {:noreply, %{state | python: from}}
  end

  @impl true
  def handle_cast({:frame, frame}, state) do
    tell(state, frame)
    {:noreply, state}
  end

  @impl true
  def handle_info({:booted, {:started, _node, peer}}, %{peer: peer} = state) do
    {:boot, port} = List.keyfind(state.waiting, :boot, 0)
    code = :code.get_path()
    arguments = [port, state.token, Guest.settings()]

    # In a process of its own, so that the end of the guest is noticed meanwhile.
    starter =
      spawn_link(fn ->
        with {:error, why} <- start_guest(peer, code, arguments), do: exit({:not_started, why})
      end)

    {:noreply, %{state | starter: starter, waiting: List.keydelete(state.waiting, :boot, 0)}}
  end

  def handle_info({:booted, {:boot_failed, {:exit_status, status}, _peer}}, state) when status > 128,
    do: {:stop, down({:exit_status, status}), state}

  def handle_info({:booted, {:boot_failed, reason, _peer}}, state),
    do: {:stop, failed("it does not boot: #{Options.Schema.show(reason)}"), state}

  def handle_info({:connected, socket}, state) do
    Process.cancel_timer(state.timer)
    :gen_tcp.close(state.listener)
    :ok = :inet.setopts(socket, active: true)
    {:ok, _timer} = :timer.send_interval(@heartbeat, :heartbeat)
    state = %{state | socket: socket, listener: nil}

    state =
      case List.keyfind(state.waiting, :python, 0) do
        nil ->
          state

        {:python, options, from} ->
          tell(state, {:start_python, options})
          %{state | python: from}
      end

    {:noreply, %{state | waiting: []}}
  end

  def handle_info({:tcp, socket, frame}, %{socket: socket} = state),
    do: {:noreply, frame |> Frame.decode() |> heard(%{state | unanswered: 0})}

  def handle_info({:tcp_closed, socket}, %{socket: socket} = state), do: ending(%{state | socket: :closed})
  def handle_info({:tcp_error, socket, _reason}, %{socket: socket} = state), do: {:noreply, state}

  def handle_info({:EXIT, peer, reason}, %{peer: peer} = state) do
    down =
      case reason do
        {:exit_status, status} -> {:exit_status, status}
        other -> {:failed, Options.Schema.show(other)}
      end

    ending(%{state | peer: nil, down: down})
  end

  def handle_info({:EXIT, owner, _reason}, %{owner: owner} = state), do: {:stop, :shutdown, state}

  # If the guest died while starting, its exit gives the reason, and arrives at the same time.
  def handle_info({:EXIT, starter, {:not_started, why}}, %{starter: starter} = state) do
    what = "not starting: #{why}"
    Process.send_after(self(), :last_words, @last_words)
    {:noreply, %{state | down: {:failed, what}}}
  end

  # Helper processes that have done their work.
  def handle_info({:EXIT, _helper, _reason}, state), do: {:noreply, state}

  def handle_info(:heartbeat, %{unanswered: @unanswered} = state),
    do: {:stop, failed("no answer for #{div(@heartbeat * @unanswered, 1000)} s"), state}

  def handle_info(:heartbeat, state) do
    tell(state, :ping)
    {:noreply, %{state | unanswered: state.unanswered + 1}}
  end

  def handle_info(:boot_timeout, state),
    do: {:stop, failed("it was not up within #{@boot_timeout} ms"), state}

  def handle_info(:last_words, state), do: {:stop, down(state.down || {:failed, "it hung up"}), state}
  def handle_info(_other, state), do: {:noreply, state}

  defp start_guest(peer, code, arguments) do
    true = :peer.call(peer, :code, :set_path, [code], @boot_timeout)
    :peer.call(peer, Guest, :start, arguments, @boot_timeout)
  catch
    kind, reason -> {:error, Options.Schema.show({kind, reason})}
  end

  # The end of the guest arrives twice: the exit status has the reason, and the closed socket means that all of its
  # messages have arrived.
  defp ending(%{down: nil} = state), do: wait_for_the_rest(state)

  defp ending(%{socket: socket} = state) when is_port(socket), do: wait_for_the_rest(state)
  defp ending(state), do: {:stop, down(state.down), state}

  defp wait_for_the_rest(state) do
    Process.send_after(self(), :last_words, @last_words)
    {:noreply, state}
  end

  defp down(reason), do: {:shutdown, {:peer_down, reason}}
  defp failed(what), do: down({:failed, what})

  defp heard({:up, os_pid}, state) do
    send(state.owner, {:peer_up, self(), os_pid})
    %{state | os_pid: os_pid}
  end

  defp heard({:python, result}, state) do
    if state.python, do: GenServer.reply(state.python, result)
    %{state | python: nil}
  end

  defp heard(:pong, state), do: state

  defp heard({:event, id, event, payload}, state) do
    send(state.owner, {:chatterbex_event, id, event, payload})
    state
  end

  defp heard({:log, level, message}, state) do
    Logger.log(level, message)
    state
  end

  # A guest that accepts nothing any more has ended, which will be noticed soon, or will never read again.
  defp tell(%{socket: socket}, frame) when is_port(socket) do
    with {:error, _reason} <- :gen_tcp.send(socket, Frame.encode(frame)) do
      Process.send_after(self(), :last_words, @last_words)
      :ok
    end
  end

  defp tell(_state, _frame), do: :ok

  @impl true
  def terminate(_reason, state) do
    # A guest that is alive reads the end of its input and halts. One that is stopped or stuck cannot.
    if state.peer && state.os_pid, do: kill(state.os_pid)
    if is_port(state.socket), do: :gen_tcp.close(state.socket)
    if state.peer, do: Process.exit(state.peer, :shutdown)
    :ok
  end

  defp kill(os_pid) do
    port =
      Port.open({:spawn_executable, ~c"/bin/sh"}, [
        :exit_status,
        :stderr_to_stdout,
        args: ["-c", "kill -KILL #{os_pid}"]
      ])

    receive do
      {^port, {:exit_status, _status}} -> :ok
    after
      1_000 -> :ok
    end
  rescue
    # There is no shell on this machine.
    ErlangError -> :ok
  end
end
