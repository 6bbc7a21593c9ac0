defmodule Chatterbex.Speech.TextSource do
  @moduledoc false
  # The text of a stream, pulled one fragment at a time in a separate process, so that audio does not wait for a source
  # that pauses.
  #
  # The consumer asks the puller with `ask/1`, and receives one of these messages, with the struct's `ref`:
  #
  #   * `{ref, {:fragment, fragment}}`
  #   * `{ref, :done}`
  #   * `{ref, {:failed, kind, reason, stacktrace}}`
  #   * `{:DOWN, ref, :process, _, reason}` if something ended the puller
  #
  # The puller may be blocked in the source's code; the guard never is. When the consumer exits or asks for it, the
  # guard has the puller close the source, and kills it if that takes too long.

  alias Chatterbex.Pull

  @enforce_keys [:guard, :ref, :puller]
  defstruct @enforce_keys ++ [asked: false]

  @type t :: %__MODULE__{guard: pid, puller: pid, ref: reference, asked: boolean}

  # Milliseconds that a source has to return and close. The consumer does not wait that long while it is being pulled.
  @grace 5_000
  @patience 100

  @doc """
  Starts the processes for a source. Nothing is pulled before `ask/1`.
  """
  @spec start(Enumerable.t()) :: t
  def start(enumerable) do
    consumer = self()
    callers = [consumer | Process.get(:"$callers", [])]

    puller =
      spawn(fn ->
        Process.put(:"$callers", callers)
        monitor = Process.monitor(consumer)

        receive do
          {:begin, ref} -> idle(Pull.open(enumerable), ref, monitor)
          {:DOWN, ^monitor, :process, _consumer, _reason} -> :ok
        end
      end)

    ref = :erlang.monitor(:process, puller, alias: :explicit_unalias)
    send(puller, {:begin, ref})
    %__MODULE__{guard: spawn(fn -> guard(consumer, puller) end), puller: puller, ref: ref}
  end

  @doc """
  Asks for one more fragment.
  """
  @spec ask(t) :: t
  def ask(%__MODULE__{asked: false} = source) do
    send(source.puller, {source.ref, :more})
    %{source | asked: true}
  end

  @doc """
  Closes the source and removes its messages. No more will arrive.

  A source that is not being pulled is closed when this returns, if it closes within 5 seconds. A source that is being
  pulled is closed as soon as it returns; if that takes longer than 5 seconds, its process is killed.
  """
  @spec close(t) :: :ok
  def close(%__MODULE__{ref: ref} = source) do
    send(source.guard, :close)

    receive do
      {:DOWN, ^ref, :process, _puller, _reason} -> :ok
    after
      if(source.asked, do: @patience, else: @grace) -> :ok
    end

    :erlang.unalias(ref)
    Process.demonitor(ref, [:flush])
    Chatterbex.Mailbox.flush(ref)
  end

  defp idle(source, ref, monitor) do
    receive do
      {^ref, :more} -> pull(source, ref, monitor)
      :close -> Pull.close(source)
      {:DOWN, ^monitor, :process, _consumer, _reason} -> Pull.close(source)
    end
  end

  defp pull(source, ref, monitor) do
    case next(source) do
      {:ok, fragment, source} ->
        send(ref, {ref, {:fragment, fragment}})
        idle(source, ref, monitor)

      last ->
        send(ref, {ref, last})
    end
  end

  defp next(source) do
    Pull.next(source)
  catch
    kind, reason -> {:failed, kind, reason, __STACKTRACE__}
  end

  defp guard(consumer, puller) do
    consuming = Process.monitor(consumer)
    pulling = Process.monitor(puller)

    receive do
      :close -> close_or_kill(puller, pulling)
      {:DOWN, ^consuming, :process, _consumer, _reason} -> close_or_kill(puller, pulling)
      {:DOWN, ^pulling, :process, _puller, _reason} -> :ok
    end
  end

  defp close_or_kill(puller, pulling) do
    send(puller, :close)

    receive do
      {:DOWN, ^pulling, :process, _puller, _reason} -> :ok
    after
      @grace -> Process.exit(puller, :kill)
    end
  end
end
