defmodule Chatterbex.Setup.Subprocess do
  @moduledoc false
  # Runs a program, with an end to every wait: it is killed with its children when its time is up, and when
  # the VM or the calling process goes away.

  alias Chatterbex.JSON

  @typedoc "`tool` is the name of the program, for messages. `why` is `{:exit, status}`, `{:timeout, ms}` or `:no_answer`."
  @type failure :: %{tool: String.t(), why: tuple | :no_answer, output: String.t()}

  # A child outlives the VM that started it, and would keep changing the environment while the next setup
  # works there. So a shell watches its own stdin, which closes with the port, and then kills the process
  # group (the VM makes each port program the leader of one).
  @watch """
  exec 3<&0
  [ "$CHATTERBEX_DISCARD" = 1 ] && exec 2>/dev/null
  unset CHATTERBEX_DISCARD
  "$@" 3<&- </dev/null &
  child=$!
  { while read -r _; do :; done <&3; kill -KILL "-$$" || kill -KILL "$child"; } >/dev/null 2>&1 &
  watcher=$!
  exec 3<&-
  wait "$child"
  status=$?
  kill "$watcher" 2>/dev/null
  exit "$status"
  """

  # Only the end of a very long output matters.
  @kept 256 * 1024

  # These variables would make a Python or an installer use another environment.
  @cleared ~w(PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONEXECUTABLE PYTHONPLATLIBDIR PYTHONSAFEPATH
              __PYVENV_LAUNCHER__ VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT
              UV_SYSTEM_PYTHON UV_PYTHON UV_TARGET UV_PREFIX UV_VENV_CLEAR FORCE_COLOR CLICOLOR_FORCE)

  @set %{"PYTHONNOUSERSITE" => "1", "PYTHONUTF8" => "1", "NO_COLOR" => "1", "PIP_NO_INPUT" => "1"}

  @doc """
  Runs `program` and returns its output.

  Options: `:timeout` in milliseconds (60 000), `:env` (a map added to the environment; `nil` removes), `:cd`, `:stderr`
  (`:merge` or `:discard`), `:on_line` (called with each line as it comes), `:on_output` (called with all output so far
  when there is more), `:tool` (the name for messages).
  """
  @spec run(Path.t(), [String.t()], keyword) :: {:ok, String.t()} | {:error, failure}
  def run(program, arguments, options \\ []) do
    timeout = Keyword.get(options, :timeout, 60_000)
    on_line = Keyword.get(options, :on_line, fn _line -> :ok end)
    on_output = options[:on_output]
    port = open(program, arguments, options)
    timer = Process.send_after(self(), {:deadline, port}, timeout)

    try do
      case collect(port, "", "", {on_line, on_output}) do
        {{:exit, 0}, output} -> {:ok, output}
        {:deadline, output} -> {:error, failure(program, {:timeout, timeout}, output, options)}
        {exit, output} -> {:error, failure(program, exit, output, options)}
      end
    after
      Process.cancel_timer(timer)
      close(port)
    end
  end

  @doc """
  Runs a script whose answer is the last line of its output that is a JSON object.
  """
  @spec answer(Path.t(), [String.t()], keyword) :: {:ok, map} | {:error, failure}
  def answer(program, arguments, options \\ []) do
    with {:ok, output} <- run(program, arguments, options) do
      lines = output |> String.split("\n", trim: true) |> Enum.reverse()

      case Enum.find_value(lines, &with({:ok, %{} = answer} <- JSON.decode(&1), do: answer, else: (_ -> nil))) do
        nil -> {:error, failure(program, :no_answer, output, options)}
        answer -> {:ok, answer}
      end
    end
  end

  defp failure(program, why, output, options),
    do: %{tool: options[:tool] || Path.basename(program), why: why, output: output}

  @doc "Closes a port and removes its messages from the mailbox."
  @spec close(port) :: :ok
  def close(port) do
    try do
      Port.close(port)
    rescue
      # It has ended by itself.
      ArgumentError -> true
    end

    flush(port)
  end

  @doc "The environment of every child, in the form that `Port.open/2` needs."
  @spec environment(map) :: [{charlist, charlist | false}]
  def environment(added \\ %{}) do
    for {name, value} <- @cleared |> Map.new(&{&1, nil}) |> Map.merge(@set) |> Map.merge(added),
        do: {String.to_charlist(name), value != nil and String.to_charlist(value)}
  end

  @doc "The last lines of an output that are not blank."
  @spec last_lines(String.t(), pos_integer) :: [String.t()]
  def last_lines(output, count) do
    output
    |> String.split("\n")
    |> Enum.map(&String.trim_trailing/1)
    |> Enum.reject(&(&1 == ""))
    |> Enum.take(-count)
  end

  defp open(program, arguments, options) do
    discard = if options[:stderr] == :discard, do: "1", else: "0"
    added = options |> Keyword.get(:env, %{}) |> Map.put("CHATTERBEX_DISCARD", discard)

    Port.open({:spawn_executable, "/bin/sh"}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      :hide,
      args: ["-c", @watch, "sh", program | arguments],
      env: environment(added),
      cd: Keyword.get_lazy(options, :cd, fn -> System.tmp_dir() || "/" end)
    ])
  end

  defp collect(port, output, partial, {on_line, on_output} = callbacks) do
    receive do
      {^port, {:data, data}} ->
        {complete, [partial]} = (partial <> data) |> String.split(["\r\n", "\n", "\r"]) |> Enum.split(-1)
        Enum.each(complete, &on_line.(valid(&1)))
        output = keep(output <> data)
        if on_output, do: on_output.(valid(output))
        collect(port, output, partial, callbacks)

      {^port, {:exit_status, status}} ->
        {{:exit, status}, valid(output)}

      {:deadline, ^port} ->
        {:deadline, valid(output)}
    end
  end

  defp flush(port) do
    receive do
      {^port, _message} -> flush(port)
      {:deadline, ^port} -> flush(port)
      {:EXIT, ^port, _reason} -> flush(port)
    after
      0 -> :ok
    end
  end

  defp keep(output) when byte_size(output) <= @kept, do: output
  defp keep(output), do: binary_part(output, byte_size(output) - @kept, @kept)

  defp valid(text) do
    if String.valid?(text), do: text, else: for(<<byte <- text>>, byte < 0x80, into: "", do: <<byte>>)
  end
end
