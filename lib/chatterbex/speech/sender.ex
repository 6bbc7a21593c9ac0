defmodule Chatterbex.Speech.Sender do
  @moduledoc false
  # A process that takes a stream and sends its chunks to another process.

  alias Chatterbex.Error

  @supervisor Chatterbex.SenderSupervisor
  @registry Chatterbex.Senders

  # A listener with more messages than this is behind: it is waited for.
  @most_unread 64
  @pause 10

  @doc """
  `make` gives the stream, from a monitor of the listener whose end is to end the stream. No more than `unheard`
  chunks are sent that `heard/2` was not called for.
  """
  @spec start(pid, pos_integer | :infinity, (reference -> Enumerable.t())) ::
          {:ok, reference} | {:error, Error.t()}
  def start(listener, unheard, make) do
    ref = make_ref()
    starter = self()

    {:ok, sender} =
      Task.Supervisor.start_child(@supervisor, fn ->
        {:ok, _owner} = Registry.register(@registry, ref, listener)
        send(starter, {ref, :registered})
        run(listener, ref, unheard, make)
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

  defp stopping, do: Error.new(:cancelled, "the application :chatterbex is not running or is stopping")

  @doc """
  Ends a sender, whose listener then gets the error `:cancelled` as its last message. One that is done is no error.
  """
  @spec cancel(reference) :: :ok
  def cancel(ref) do
    with [{sender, listener}] <- Registry.lookup(@registry, ref) do
      monitor = Process.monitor(sender)
      Process.exit(sender, :kill)

      receive do
        {:DOWN, ^monitor, :process, _pid, :killed} ->
          tell(listener, ref, {:error, Error.new(:cancelled, "the stream was cancelled")})

        {:DOWN, ^monitor, :process, _pid, _done} ->
          :ok
      end
    end

    :ok
  end

  @doc """
  Lets a sender send as many more chunks. One that is done is no error.
  """
  @spec heard(reference, pos_integer) :: :ok
  def heard(ref, chunks) do
    for {sender, _listener} <- Registry.lookup(@registry, ref), do: send(sender, {ref, :heard, chunks})
    :ok
  end

  defp run(listener, ref, unheard, make) do
    monitor = Process.monitor(listener)

    Enum.reduce(make.(monitor), 0, fn audio, sent ->
      sent = await_heard(sent, unheard, ref, monitor)
      await_room(listener, monitor)
      tell(listener, ref, {:chunk, audio})
      sent + 1
    end)

    tell(listener, ref, :done)
  rescue
    error in Error ->
      tell(listener, ref, {:error, error})

    exception ->
      message = "the source of the text failed: #{Exception.message(exception)}"
      tell(listener, ref, {:error, Error.new(:generation_failed, message, %{exception: exception})})
  end

  # `sent` are the chunks that were sent and not heard. All that were heard are taken from the mailbox at once.
  defp await_heard(sent, unheard, ref, monitor) do
    receive do
      {^ref, :heard, chunks} -> await_heard(max(sent - chunks, 0), unheard, ref, monitor)
      {:DOWN, ^monitor, :process, _pid, _reason} -> exit(:normal)
    after
      if(sent < unheard, do: 0, else: :infinity) -> sent
    end
  end

  # What is in another node's mailbox cannot be seen.
  defp await_room(listener, monitor) when node(listener) == node() do
    with {:message_queue_len, unread} when unread > @most_unread <- Process.info(listener, :message_queue_len) do
      receive do
        {:DOWN, ^monitor, :process, _pid, _reason} -> exit(:normal)
      after
        @pause -> await_room(listener, monitor)
      end
    end
  end

  defp await_room(_remote, _monitor), do: :ok

  defp tell(listener, ref, message), do: send(listener, {:chatterbex, ref, message})
end
