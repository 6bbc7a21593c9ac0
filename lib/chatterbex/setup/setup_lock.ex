defmodule Chatterbex.Setup.SetupLock do
  @moduledoc false
  # One setup at a time in one home.
  #
  # A small Python process holds the kernel's lock on a file for as long as its stdin is open. The kernel frees
  # it however a setup ends, so that there is no stale lock to detect.

  alias Chatterbex.Setup.{PackageProfile, Subprocess}

  @doc """
  Runs `work` under the lock on `path`. If another setup holds it, this calls `busy` once with its process number, and
  waits at most `timeout` milliseconds.
  """
  @spec hold(Path.t(), Path.t(), (String.t() -> term), timeout :: pos_integer, (... -> result)) ::
          result | {:error, {:busy, String.t()}}
        when result: term
  def hold(python, path, busy, timeout, work) do
    arguments = ["-I", PackageProfile.script("hold_lock.py"), path, System.pid()]
    options = [:binary, :exit_status, :stderr_to_stdout, :hide, line: 1024, args: arguments]
    port = Port.open({:spawn_executable, python}, [{:env, Subprocess.environment()} | options])
    timer = Process.send_after(self(), {:deadline, port}, timeout)

    try do
      case wait(port, busy, "?") do
        :held -> work.()
        {:busy, pid} -> {:error, {:busy, pid}}
      end
    after
      Process.cancel_timer(timer)
      Subprocess.close(port)
    end
  end

  defp wait(port, busy, other) do
    receive do
      {:deadline, ^port} ->
        {:busy, other}

      {^port, {:data, {_end_of_line, "busy " <> pid}}} ->
        busy.(pid)
        wait(port, busy, pid)

      # `held`, or a file system without locks, which must not prevent a setup.
      {^port, _held_unsupported_or_exit} ->
        :held
    end
  end
end
