defmodule Chatterbex.Setup.UvTest do
  use ExUnit.Case, async: true

  import Chatterbex.SetupHelp

  alias Chatterbex.Setup.Uv

  @moduletag :tmp_dir

  test "the first that runs and is new enough", %{tmp_dir: dir} do
    executable(Path.join(dir, "broken/uv"), "exit 1")
    executable(Path.join(dir, "old/uv"), "echo 'uv 0.1.44'")
    executable(Path.join(dir, "good/uv"), "echo 'uv 0.9.1 (abc 2025-10-01)'")
    folders = for name <- ~w(none broken old good), do: Path.join(dir, name)

    assert %Uv{version: "0.9.1", path: path} = Uv.find(machine(folders), [])
    assert path == Path.join(dir, "good/uv")
    assert %Uv{} = Uv.find(machine([]), folders)
    assert Uv.find(machine(Enum.take(folders, 3)), []) == nil
  end

  test "the Python that it prefers comes first, then all others that could do", %{
    tmp_dir: dir
  } do
    entry = fn path, minor, implementation ->
      ~s({"path": "#{path}", "implementation": "#{implementation}", "version_parts": {"major": 3, "minor": #{minor}}})
    end

    list =
      Enum.join(
        [
          entry.("/usr/bin/python3.11", 11, "cpython"),
          entry.("/usr/bin/python3.9", 9, "cpython"),
          entry.("/usr/bin/python3.14", 14, "cpython"),
          entry.("/usr/bin/python3.15", 15, "cpython"),
          entry.("/opt/pypy", 10, "pypy"),
          entry.("/home/ann/.local/share/uv/python/cpython-3.10/bin/python3.10", 10, "cpython")
        ],
        ","
      )

    other = """
    case "$2" in
      find) echo 'warning: something' >&2; echo /usr/bin/python3.12 ;;
      list) echo 'warning: something' >&2; echo '[#{list}]' ;;
    esac
    """

    uv = %Uv{path: fake_uv(Path.join(dir, "uv"), "/bin/false", "", other), version: "0.99.0"}

    assert Enum.take(Uv.pythons(uv, nil), 1) == ["/usr/bin/python3.12"]
    assert length(calls(dir)) == 1

    assert Enum.to_list(Uv.pythons(uv, "3.11")) == [
             "/usr/bin/python3.12",
             "/home/ann/.local/share/uv/python/cpython-3.10/bin/python3.10",
             "/usr/bin/python3.11",
             "/usr/bin/python3.14"
           ]

    assert Enum.any?(calls(dir), &(&1 =~ ~r/python find .* 3\.11$/))
  end

  test "a uv that knows none, or says something else", %{tmp_dir: dir} do
    for {name, other} <- [none: "exit 2", talk: "echo hello"] do
      uv = %Uv{path: fake_uv(Path.join(dir, "#{name}/uv"), "/bin/false", "", other), version: "0.99.0"}
      assert [] == uv |> Uv.pythons(nil) |> Enum.reject(&(&1 == "hello"))
    end

    assert Enum.to_list(Uv.pythons(nil, nil)) == []
  end
end
