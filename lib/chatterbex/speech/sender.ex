defmodule Chatterbex.Speech.Sender do
  @moduledoc false
  # A process that consumes a stream and sends its chunks to another process.

  alias Chatterbex.{Error, Options.Schema, Speech}

  @supervisor Chatterbex.SenderSupervisor
  @registry Chatterbex.Senders

  # If a listener has more messages than this, the sender waits for it.
  @max_unread 64
  @pause 10

  # Milliseconds that a sender has to stop by itself.
  @patience 100

  @doc """
  `make` gives the stream, from what is to stop it. No more than `max_unacked`
  chunks are sent that `ack/2` was not called for.
  """
  @spec start(pid, pos_integer | :infinity, (Speech.AudioStream.stop() -> Enumerable.t())) ::
          {:ok, reference} | {:error, Error.t()}
  def start(listener, max_unacked, make) do
    ref = make_ref()
    starter = self()

    {:ok, sender} =
      Task.Supervisor.start_child(@supervisor, fn ->
        {:ok, _owner} = Registry.register(@registry, ref, listener)
        send(starter, {ref, :registered})
        run(listener, ref, max_unacked, make)
      end)

    monitor = Process.monitor(sender)

    receive do
      {^ref, :registered} ->
        Process.demonitor(monitor, [:flush])
        {:ok, ref}

      {:DOWN, ^monitor, :process, _pid, _reason} ->
        {:error, stopping()}
    end
  catch
    :exit, _no_supervisor -> {:error, stopping()}
  end

  defp stopping, do: Error.new(:not_running, "the application :chatterbex is not running or is stopping")

  @doc """
  Ends a sender. Its listener gets the error `:cancelled` as the last message. Does nothing if the sender is done.

  A sender that does not end by itself, because it waits for code outside the library, is killed.
  """
  @spec cancel(reference) :: :ok
  def cancel(ref) do
    with [{sender, listener}] <- Registry.lookup(@registry, ref) do
      monitor = Process.monitor(sender)
      send(sender, {ref, :cancel})

      receive do
        {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
      after
        @patience -> kill(sender, monitor, listener, ref)
      end
    end

    :ok
  end

  defp kill(sender, monitor, listener, ref) do
    Process.exit(sender, :kill)

    receive do
      {:DOWN, ^monitor, :process, _pid, :killed} -> tell(listener, ref, {:error, cancelled()})
      {:DOWN, ^monitor, :process, _pid, _done} -> :ok
    end
  end

  defp cancelled, do: Error.new(:cancelled, "the stream was cancelled")

  @doc """
  Lets a sender send that number of further chunks. Does nothing if the sender is done.
  """
  @spec ack(reference, pos_integer) :: :ok
  def ack(ref, chunks) do
    for {sender, _listener} <- Registry.lookup(@registry, ref), do: send(sender, {ref, :ack, chunks})
    :ok
  end

  # It traps exits, because it must send a last message when it is stopped.
  defp run(listener, ref, max_unacked, make) do
    Process.flag(:trap_exit, true)
    [supervisor | _ancestors] = Process.get(:"$ancestors")
    supervisor = if is_pid(supervisor), do: supervisor, else: Process.whereis(supervisor)
    stop = %{listener: Process.monitor(listener), supervisor: supervisor, cancel: ref}

    case deliver(listener, ref, max_unacked, stop, make) do
      :listener_gone -> :ok
      last -> tell(listener, ref, last)
    end
  end

  # Whatever the source of the text or :progress do, there is a last message.
  defp deliver(listener, ref, max_unacked, stop, make) do
    Enum.reduce(make.(stop), 0, fn audio, sent ->
      sent = await_acks(sent, max_unacked, ref, stop)
      await_room(listener, stop)
      tell(listener, ref, {:chunk, audio})
      sent + 1
    end)

    :done
  catch
    :exit, {:shutdown, :listener_gone} ->
      :listener_gone

    :exit, {:shutdown, :stopping} ->
      {:error, Error.new(:cancelled, "the application :chatterbex is stopping")}

    :exit, {:shutdown, :cancelled} ->
      {:error, cancelled()}

    :error, %Error{} = error ->
      {:error, error}

    kind, reason ->
      {:error, failed(kind, reason, __STACKTRACE__)}
  end

  defp failed(kind, reason, stacktrace) do
    reason = Exception.normalize(kind, reason, stacktrace)

    what =
      case kind do
        :error -> Exception.message(reason)
        :exit -> "exit: " <> Exception.format_exit(reason)
        :throw -> "it threw #{Schema.show(reason)}"
      end

    Error.new(
      :generation_failed,
      "the source of the text or the function :progress failed: #{what}",
      if(kind == :error, do: %{exception: reason}, else: %{kind: kind, reason: reason})
    )
  end

  # `sent` are the chunks that were sent and not acknowledged. All acknowledgements are taken from the mailbox at once.
  defp await_acks(sent, max_unacked, ref, %{listener: gone, supervisor: supervisor} = stop) do
    receive do
      {^ref, :ack, chunks} -> await_acks(max(sent - chunks, 0), max_unacked, ref, stop)
      {:DOWN, ^gone, :process, _pid, _reason} -> exit({:shutdown, :listener_gone})
      {:EXIT, ^supervisor, _reason} -> exit({:shutdown, :stopping})
      {^ref, :cancel} -> exit({:shutdown, :cancelled})
      # From a process that :progress has linked.
      {:EXIT, _other, _reason} -> await_acks(sent, max_unacked, ref, stop)
    after
      if(sent < max_unacked, do: 0, else: :infinity) -> sent
    end
  end

  # The mailbox of a process on another node cannot be seen.
  defp await_room(listener, %{listener: gone, supervisor: supervisor, cancel: ref} = stop)
       when node(listener) == node() do
    with {:message_queue_len, unread} when unread > @max_unread <- Process.info(listener, :message_queue_len) do
      receive do
        {:DOWN, ^gone, :process, _pid, _reason} -> exit({:shutdown, :listener_gone})
        {:EXIT, ^supervisor, _reason} -> exit({:shutdown, :stopping})
        {^ref, :cancel} -> exit({:shutdown, :cancelled})
      after
        @pause -> await_room(listener, stop)
      end
    end
  end

  defp await_room(_remote, _stop), do: :ok

  defp tell(listener, ref, message), do: send(listener, {:chatterbex, ref, message})
end
