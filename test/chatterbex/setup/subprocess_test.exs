defmodule Chatterbex.Setup.SubprocessTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Setup.Subprocess

  @moduletag :tmp_dir

  defp sh(script, options \\ []), do: Subprocess.run("/bin/sh", ["-c", script], options)

  # Tells when every process that has the pipe open for writing has ended.
  defp all_ended(pipe) do
    port = Port.open({:spawn_executable, "/bin/cat"}, [:binary, :exit_status, args: [pipe]])
    fn -> assert_receive {^port, {:exit_status, 0}}, 10_000 end
  end

  test "gives what a program wrote, on stdout and stderr" do
    assert sh("echo one; echo two >&2") == {:ok, "one\ntwo\n"}
    assert sh("echo one; echo two >&2", stderr: :discard) == {:ok, "one\n"}
  end

  test "a program that fails, is killed or does not exist" do
    assert {:error, %{why: {:exit, 7}, output: "no\n"}} = sh("echo no; exit 7")
    assert {:error, %{why: {:exit, 137}}} = sh("kill -KILL $$")
    assert {:error, %{why: {:exit, 127}, output: output}} = Subprocess.run("/nowhere/program", [])
    assert output =~ "/nowhere/program"
  end

  test "calls back with each line as it comes" do
    test = self()
    assert {:ok, _output} = sh("printf 'a\\nb'; printf 'c\\rd\\n'", on_line: &send(test, {:line, &1}))
    for line <- ["a", "bc", "d"], do: assert_received({:line, ^line})
  end

  test "keeps the end of a long output, and only text" do
    assert {:ok, output} = sh("yes 0123456789 | head -n 50000; printf 'end\\377\\n'")
    assert byte_size(output) < 300_000
    assert String.ends_with?(output, "end\n")
    assert String.valid?(output)
  end

  test "nothing waits for input" do
    assert sh("cat; echo done") == {:ok, "done\n"}
  end

  test "variables that would lead Python or an installer astray are taken away" do
    {:ok, output} = sh("env", env: %{"ADDED" => "yes", "HOME" => nil})
    assert output =~ "ADDED=yes\n"
    refute output =~ ~r/^HOME=/m
    assert output =~ "PIP_NO_INPUT=1\n"
    refute output =~ ~r/^(PYTHONHOME|PYTHONPATH|VIRTUAL_ENV|PIP_USER|CHATTERBEX_DISCARD)=/m
  end

  test "when the time is up, the program and its children end", %{tmp_dir: dir} do
    pipe = Path.join(dir, "pipe")
    {_output, 0} = System.cmd("mkfifo", [pipe])
    ended = all_ended(pipe)
    script = "(exec 9>#{pipe}; sleep 600) & echo started; sleep 600"
    assert {:error, %{why: {:timeout, 300}, output: "started\n"}} = sh(script, timeout: 300)
    ended.()
  end

  test "when the caller is killed, the program and its children end", %{tmp_dir: dir} do
    pipe = Path.join(dir, "pipe")
    {_output, 0} = System.cmd("mkfifo", [pipe])
    ended = all_ended(pipe)
    test = self()
    script = "(exec 9>#{pipe}; echo child; sleep 600) & sleep 600"

    caller = spawn(fn -> sh(script, on_line: &send(test, {:line, &1})) end)
    assert_receive {:line, "child"}, 5_000
    Process.exit(caller, :kill)
    ended.()
  end

  test "leaves no message behind, also with exits trapped" do
    Process.flag(:trap_exit, true)
    sh("echo one")
    sh("echo one; sleep 600", timeout: 200)
    refute_received _any
  end
end
