defmodule Chatterbex.Setup.PythonSearchTest do
  use ExUnit.Case, async: true

  import Chatterbex.SetupHelp

  alias Chatterbex.Setup.{PythonSearch, SetupRun, StepReport}

  @moduletag :tmp_dir

  # The Python that is found on a machine with a uv, and what was said meanwhile.
  defp search(dir, machine, options \\ []) do
    tools = Path.join(dir, "tools")
    fake_uv(Path.join(tools, "uv"), "/bin/false", "exit 1")
    test = self()
    report = [report: &send(test, {:line, &1}), home: Path.join(dir, "home")]
    {:ok, run} = SetupRun.new([machine: %{machine | path: [tools | machine.path]}] ++ report ++ options)

    case StepReport.run(PythonSearch.steps(), run) do
      {:ok, %{interpreter: interpreter}} -> {interpreter.path, text()}
      {:error, error} -> {error.message, text()}
    end
  end

  test "the first that fits is taken; those before it come with their reasons", %{tmp_dir: dir} do
    old = fake_python(Path.join(dir, "a/python3.12"), version: [3, 9, 1])
    good = fake_python(Path.join(dir, "b/python3.11"))
    fake_python(Path.join(dir, "b/python3.10"), version: [3, 10, 1])
    assert {^good, said} = search(dir, machine([Path.join(dir, "a"), Path.join(dir, "b")]))
    assert said =~ "skipped #{old}: it is Python 3.9.1, not 3.10 to 3.14\n"
    assert length(calls(Path.join(dir, "b"))) == 1
  end

  test "those of other versions are named if there is no other", %{tmp_dir: dir} do
    python = fake_python(Path.join(dir, "a/python3.9"), version: [3, 9, 1])
    assert {message, _said} = search(dir, machine([Path.join(dir, "a")]))
    assert message =~ "  | #{python}: it is Python 3.9.1, not 3.10 to 3.14"
  end

  test "one file under several names is asked once", %{tmp_dir: dir} do
    folder = Path.join(dir, "a")
    fake_python(Path.join(folder, "python3.11"), version: [3, 9, 1])
    File.ln_s!(folder, Path.join(dir, "link"))
    assert {message, _said} = search(dir, machine([folder, Path.join(dir, "link")]))
    assert message =~ "it is Python 3.9.1"
    assert length(calls(folder)) == 1
  end

  test "pyenv's come after the others, whatever their version, and uv's before them", %{tmp_dir: dir} do
    pyenv = fake_python(Path.join(dir, "versions/3.12.1/bin/python3.12"), version: [3, 12, 1])
    system = fake_python(Path.join(dir, "bin/python3.10"), version: [3, 10, 1])
    machine = machine([Path.join(dir, "bin")], pyenv: [Path.dirname(pyenv)])
    assert {^system, _said} = search(dir, machine)
    assert {^pyenv, _said} = search(dir, %{machine | path: []})

    uvs = fake_python(Path.join(dir, "share/uv/python/bin/python3.10"), version: [3, 10, 2])
    assert {^uvs, _said} = search(dir, %{machine | path: [Path.dirname(system), Path.dirname(uvs)]})
  end

  test "the version that is asked for", %{tmp_dir: dir} do
    fake_python(Path.join(dir, "a/python3.12"), version: [3, 12, 1])
    older = fake_python(Path.join(dir, "a/python3.10"), version: [3, 10, 1])
    assert {^older, _said} = search(dir, machine([Path.join(dir, "a")]), python: "3.10")
  end

  test "--python takes a path, a folder or a name on PATH", %{tmp_dir: dir} do
    python = fake_python(Path.join(dir, "bin/python3"))
    machine = machine([Path.join(dir, "bin")])

    for given <- [python, dir <> "/", "python3"],
        do: assert({^python, _said} = search(dir, machine, python: given))

    assert {message, _said} = search(dir, %{machine | path: [], folders: machine.path}, python: "python3")
    assert message =~ "python3: there is no such program on PATH"
  end
end
