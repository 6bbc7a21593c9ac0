defmodule Chatterbex.Files.ReplacementTest do
  use ExUnit.Case, async: true

  import Bitwise

  alias Chatterbex.{Audio, Voice}
  alias Chatterbex.Files.Replacement
  alias Chatterbex.Setup.EnvironmentManifest

  @moduletag :tmp_dir

  @audio %Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}

  # Everything that replaces a file: how it writes to a path, and how to tell the new file from the old.
  defp writers(dir) do
    voice = %Voice{data: "new voice", family: "turbo"}

    [
      {"replacement", &Replacement.write(&1, "new")},
      {"audio.wav", &Audio.write(@audio, &1)},
      {"voice.voice", &Voice.save(voice, &1)},
      {"writer.wav",
       fn path ->
         with {:ok, writer} <- Audio.Writer.open(path),
              {:ok, writer} <- Audio.Writer.write(writer, @audio),
              do: Audio.Writer.close(writer)
       end},
      {"chatterbex.json", fn _path -> EnvironmentManifest.write(dir, %{}) end}
    ]
  end

  defp mode(path), do: File.stat!(path).mode &&& 0o7777

  test "a file that is replaced hands on its mode", %{tmp_dir: dir} do
    for {name, write} <- writers(dir), mode <- [0o600, 0o664] do
      path = Path.join(dir, name)
      File.write!(path, "old")
      File.chmod!(path, mode)
      assert :ok = write.(path)
      assert File.read!(path) != "old"
      assert mode(path) == mode, name
      File.rm!(path)
    end

    assert File.ls!(dir) == []
  end

  test "what a symbolic link points to is replaced, and the link stays", %{tmp_dir: dir} do
    elsewhere = Path.join(dir, "elsewhere")
    File.mkdir!(elsewhere)

    for {name, write} <- writers(dir), old <- ["old", nil] do
      path = Path.join(dir, name)
      target = Path.join(elsewhere, name)
      File.ln_s!(Path.join("elsewhere", name), path)
      if old, do: File.write!(target, old)
      assert :ok = write.(path)
      assert File.read_link!(path) == Path.join("elsewhere", name)
      assert File.lstat!(target).type == :regular
      assert File.read!(target) != "old"
      File.rm!(path)
      File.rm!(target)
    end

    assert File.ls!(elsewhere) == []
  end

  test "links to links are followed as far as the kernel does", %{tmp_dir: dir} do
    # In a folder that is itself a link, the kernel decides what `..` is.
    File.mkdir_p!(Path.join(dir, "deep/folder"))
    File.ln_s!("deep/folder", Path.join(dir, "short"))
    File.ln_s!("../file", Path.join(dir, "deep/folder/link"))
    File.ln_s!(Path.join(dir, "short/link"), Path.join(dir, "start"))
    assert :ok = Replacement.write(Path.join(dir, "start"), "here")
    assert File.read!(Path.join(dir, "deep/file")) == "here"

    File.ln_s!("round", Path.join(dir, "round"))
    assert {:error, :eloop} = Replacement.write(Path.join(dir, "round"), "nowhere")
  end

  test "two writers of one file use different names, and the last one wins", %{tmp_dir: dir} do
    path = Path.join(dir, "file")
    assert {:ok, one} = Replacement.open(path)
    assert {:ok, other} = Replacement.open(path)
    assert one.part != other.part
    for {replacement, text} <- [{one, "one"}, {other, "other"}], do: :ok = :file.write(replacement.file, text)
    assert :ok = Replacement.commit(one)
    assert File.read!(path) == "one"
    assert :ok = Replacement.commit(other)
    assert File.read!(path) == "other"
    assert File.ls!(dir) == ["file"]
  end

  test "names do not repeat in another VM, even with the same process id" do
    code = ~s[IO.write(Chatterbex.Files.Replacement.unique("a"))]
    {other, 0} = Chatterbex.TestHelp.elixir(code)
    names = [other | for(_n <- 1..1_000, do: Replacement.unique("a"))]
    assert Enum.uniq(names) == names
    # They have no counter: 64 random bits.
    for name <- names, do: assert(name =~ ~r/^a\.[0-9a-f]{16}$/)
  end

  test "an unfinished file leaves nothing behind", %{tmp_dir: dir} do
    path = Path.join(dir, "file")
    File.mkdir!(path)
    assert {:error, posix} = Replacement.write(path, "text")
    assert posix in [:eisdir, :enotempty, :eexist]
    assert {:ok, replacement} = Replacement.open(Path.join(dir, "other"))
    assert :ok = Replacement.abort(replacement)
    assert :ok = Replacement.abort(replacement)
    assert File.ls!(dir) == ["file"]
    assert {:error, :enoent} = Replacement.open(Path.join(dir, "no/such/folder"))
  end
end
