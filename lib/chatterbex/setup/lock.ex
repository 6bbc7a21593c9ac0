defmodule Chatterbex.Setup.Lock do
  @moduledoc false
  # One setup at a time in one home.
  #
  # A small Python process holds the kernel's lock on a file for as long as its stdin is open. The kernel frees
  # it however a setup ends, so that there is no stale lock to detect.

  alias Chatterbex.Setup.{Command, Profile}

  @doc """
  Runs `work` under the lock on `path`. `busy` is called once, with the other's process number, where
  another setup is at work; that one is waited for, at most `timeout` milliseconds.
  """
  @spec hold(Path.t(), Path.t(), (String.t() -> term), timeout :: pos_integer, (() -> result)) ::
          result | {:error, {:busy, String.t()}}
        when result: term
  def hold(python, path, busy, timeout, work) do
    port =
      Port.open({:spawn_executable, python}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        :hide,
        line: 1024,
        args: ["-I", Profile.script("hold_lock.py"), path, System.pid()],
        env: Command.environment()
      ])

    try do
      case wait(port, busy, timeout, "?") do
        :held -> work.()
        {:busy, pid} -> {:error, {:busy, pid}}
      end
    after
      Command.close(port)
    end
  end

  defp wait(port, busy, timeout, other) do
    started = System.monotonic_time(:millisecond)

    receive do
      {^port, {:data, {_end_of_line, "busy " <> pid}}} ->
        busy.(pid)
        wait(port, busy, timeout - (System.monotonic_time(:millisecond) - started), pid)

      # `held`, or a file system without locks, which must not prevent a setup.
      {^port, _held_unsupported_or_exit} ->
        :held
    after
      max(timeout, 0) -> {:busy, other}
    end
  end
end
