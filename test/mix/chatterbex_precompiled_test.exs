defmodule Mix.Tasks.Chatterbex.PrecompiledTest do
  # Alone: it changes the current folder.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Chatterbex.Native.{Archive, Checksums, Library, Target}
  alias Mix.Tasks.Chatterbex.Precompiled

  @moduletag :tmp_dir

  setup %{tmp_dir: dir} do
    for name <- Library.files(), do: File.write!(Path.join(dir, name), name)
    :ok
  end

  defp run(dir, arguments), do: File.cd!(dir, fn -> capture_io(fn -> Precompiled.run(arguments) end) end)

  test "packs archives and lists them", %{tmp_dir: dir} do
    version = Mix.Project.config()[:version]
    mac = Archive.name(version, "aarch64-apple-darwin")
    here = Archive.name(version, Target.detect().name)

    assert run(dir, ~w(pack --target aarch64-apple-darwin --libraries . --output archives)) ==
             "archives/#{mac}\n"

    assert run(dir, ~w(pack --libraries . --output archives)) == "archives/#{here}\n"
    assert run(dir, ~w(checksums archives)) == "checksum-Elixir.Chatterbex.Native.exs lists 2 archives\n"

    assert {:ok, checksums} = Checksums.read(Path.join(dir, Checksums.file_name()))
    archive = File.read!(Path.join([dir, "archives", mac]))
    assert checksums[mac] == Checksums.sha256(archive)
    assert Map.keys(checksums) == Enum.sort([mac, here])
    assert {:ok, libraries} = Archive.unpack(archive)
    assert Enum.sort(libraries) == for(name <- Library.files(), do: {name, name})
  end

  test "says what is wrong", %{tmp_dir: dir} do
    for {arguments, message} <- [
          {~w(pack), "priv/native/audio.so is missing"},
          {~w(checksums .), "there is no archive in ."},
          {~w(pack --traget x), "usage: mix chatterbex.precompiled pack"},
          {~w(checksums), "usage: mix chatterbex.precompiled pack"}
        ],
        do: assert_raise(Mix.Error, ~r/^#{Regex.escape(message)}/, fn -> run(dir, arguments) end)
  end
end
