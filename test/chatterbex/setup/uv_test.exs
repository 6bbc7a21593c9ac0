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

    assert %Uv{version: "0.9.1", path: path} = Uv.find(machine(folders), dir)
    assert path == Path.join(dir, "good/uv")
    assert %Uv{} = Uv.find(machine([], folders: folders), dir)
    assert Uv.find(machine(Enum.take(folders, 3)), dir) == nil
  end

  test "the one in the home, where the one of an environment is kept", %{tmp_dir: dir} do
    executable(Path.join(dir, "venv/bin/uv"), "echo 'uv 0.9.1'")
    kept = Path.join(dir, "bin/uv")
    assert %Uv{path: ^kept} = Uv.find(machine([]), dir)
    File.rm_rf!(Path.join(dir, "venv"))
    assert %Uv{path: ^kept} = Uv.find(machine([]), dir)
  end

  test "finds Pythons in folders", %{tmp_dir: dir} do
    folders = for name <- ~w(a b), do: Path.join(dir, name)
    pythons = for {folder, minor} <- Enum.zip(folders, 11..12), do: fake_python("#{folder}/python3.#{minor}")

    uv = %Uv{path: fake_uv(Path.join(dir, "uv"), "/bin/false", ""), version: "0.99.0"}
    assert uv |> Uv.pythons(folders) |> Enum.map(& &1["path"]) == pythons
  end

  test "a uv that fails, or says something else, finds no Python", %{tmp_dir: dir} do
    for {name, script} <- [none: "exit 2", talk: "echo hello", other: "echo '[1, {\"path\": 2}]'"] do
      uv = %Uv{path: executable(Path.join(dir, "#{name}/uv"), script), version: "0.99.0"}
      assert Uv.pythons(uv, [dir]) == []
    end
  end

  test "tells how much it downloads, how much of it is here, and how long it took" do
    begun = """
    Resolved 24 packages in 212ms
    Downloading torch (1.5GiB)
    Downloading numpy (16.0MiB)
    Downloading hibari-tts (512.0KiB)
     Downloaded numpy
    """

    assert Uv.downloads("") == %{total: 0, complete: 0, seconds: nil}
    total = 1.5 * 1024 ** 3 + 16 * 1024 ** 2 + 512 * 1024
    assert Uv.downloads(begun) == %{total: total, complete: 16.0 * 1024 ** 2, seconds: nil}
    ended = begun <> " Downloaded hibari-tts\n Downloaded torch\nPrepared 24 packages in 1m 02s\n"
    assert Uv.downloads(ended) == %{total: total, complete: total, seconds: 62.0}
    assert Uv.downloads("Prepared 1 package in 250ms\nPrepared 2 packages in 1.50s\n").seconds == 1.75
  end
end
