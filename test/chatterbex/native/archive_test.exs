defmodule Chatterbex.Native.ArchiveTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Native.{Archive, Checksums, Library}

  @moduletag :tmp_dir

  defp libraries(dir, salt \\ "") do
    folder = Path.join(dir, "libraries")
    File.mkdir_p!(folder)
    for name <- Library.files(), do: File.write!(Path.join(folder, name), name <> salt)
    folder
  end

  # A tar file of such entries, gzipped: `{path, content}`, `{:link, path, target}` or `{:folder, path}`.
  defp archive(dir, entries) do
    path = Path.join(dir, "made.tar")
    {:ok, tar} = :erl_tar.open(path, [:write])

    for entry <- entries do
      case entry do
        {:link, name, target} ->
          link = Path.join(dir, "link")
          File.ln_s!(target, link)
          :ok = :erl_tar.add(tar, to_charlist(link), to_charlist(name), [])

        {:folder, name} ->
          folder = Path.join(dir, "empty")
          File.mkdir_p!(folder)
          :ok = :erl_tar.add(tar, to_charlist(folder), to_charlist(name), [])

        {name, content} ->
          :ok = :erl_tar.add(tar, content, to_charlist(name), [])
      end
    end

    :ok = :erl_tar.close(tar)
    path |> File.read!() |> :zlib.gzip()
  end

  defp all, do: for(name <- Library.files(), do: {name, "content of #{name}"})

  test "a name says version, NIF version and target, as rustler_precompiled's do" do
    name = Archive.name("0.1.0", "x86_64-unknown-linux-gnu")
    assert name == "libchatterbex-v0.1.0-nif-2.15-x86_64-unknown-linux-gnu.so.tar.gz"
    assert Archive.parse(name, "0.1.0") == {:ok, {"2.15", "x86_64-unknown-linux-gnu"}}
    assert Archive.parse(name, "0.1") == :error
    assert Archive.parse(name, "0.2.0") == :error
    assert Archive.parse("libchatterbex-v0.1.0-nif-2.15-../x.so.tar.gz", "0.1.0") == :error
  end

  test "the NIF version is the one that the libraries are built for" do
    lock = File.read!("native/Cargo.lock")
    assert lock =~ ~s(name = "rustler"\nversion = "0.39.)
    # Its default feature is nif_version_2_15, and no crate asks for another.
    manifests = Enum.map_join(["native/Cargo.toml" | Path.wildcard("native/*/Cargo.toml")], &File.read!/1)
    assert manifests =~ "rustler"
    refute manifests =~ "nif_version"
    assert Archive.name("1.0.0", "t") =~ "-nif-2.15-"
  end

  test "what was packed is unpacked, and the same libraries give the same bytes", %{tmp_dir: dir} do
    folder = libraries(dir)
    [one, two] = for n <- 1..2, do: Path.join(dir, "#{n}/a.tar.gz")
    assert :ok = Archive.pack(folder, one)
    for name <- Library.files(), do: File.touch!(Path.join(folder, name), 1_000_000)
    assert :ok = Archive.pack(folder, two)
    assert File.read!(one) == File.read!(two)
    {:ok, entries} = :erl_tar.table({:binary, :zlib.gunzip(File.read!(one))}, [:verbose])
    assert Enum.uniq(for entry <- entries, do: elem(entry, 3)) == [0]
    assert File.ls!(Path.dirname(one)) == ["a.tar.gz"]
    assert {:ok, unpacked} = Archive.unpack(File.read!(one))
    assert Enum.sort(unpacked) == for(name <- Library.files(), do: {name, name})

    File.rm!(Path.join(folder, "t3.so"))
    assert {:error, message} = Archive.pack(folder, one)
    assert message == "#{folder}/t3.so is missing"
  end

  test "a path that leads elsewhere is refused, and nothing is written", %{tmp_dir: dir} do
    for path <- ["../escaped.so", "/tmp/escaped.so", "folder/engine.so", "more.so"] do
      assert {:error, message} = dir |> archive(all() ++ [{path, "x"}]) |> Archive.unpack()
      assert message == "it holds #{inspect(path)} (regular), which does not belong there"
    end

    refute File.exists?(Path.join(dir, "../escaped.so"))
  end

  test "a link or a folder in the place of a library is refused", %{tmp_dir: dir} do
    others = List.keydelete(all(), "engine.so", 0)

    assert {:error, message} =
             dir |> archive(others ++ [{:link, "engine.so", "/etc/passwd"}]) |> Archive.unpack()

    assert message == ~s|it holds "engine.so" (symlink), which does not belong there|

    assert {:error, message} = dir |> archive(all() ++ [{:folder, "more"}]) |> Archive.unpack()
    assert message =~ "which does not belong there"
  end

  test "a library that is missing or comes twice is said", %{tmp_dir: dir} do
    assert {:error, "it lacks audio.so"} = dir |> archive(tl(all())) |> Archive.unpack()

    assert {:error, message} = dir |> archive([hd(all()) | all()]) |> Archive.unpack()
    assert message =~ ~s(it holds "audio.so")
  end

  test "a damaged archive is an error", %{tmp_dir: dir} do
    whole = archive(dir, all())
    size = byte_size(whole)

    damaged = [
      "",
      "no archive",
      :zlib.gzip("no tar file, but a long enough text of some kind to look at"),
      binary_part(whole, 0, size - 1),
      binary_part(whole, 0, div(size, 2)),
      binary_part(whole, 0, 40) <> <<255, 255, 255>> <> binary_part(whole, 43, size - 43)
    ]

    for archive <- damaged do
      assert {:error, message} = Archive.unpack(archive)
      assert message == "it is damaged" or message =~ "it lacks"
    end
  end

  test "a small archive that claims to be huge is refused before it fills the memory" do
    z = :zlib.open()
    :ok = :zlib.deflateInit(z, :best_speed, :deflated, 31, 8, :default)
    zeros = :binary.copy(<<0>>, 1_000_000)
    pieces = for _ <- 1..150, do: :zlib.deflate(z, zeros)
    bomb = IO.iodata_to_binary([pieces, :zlib.deflate(z, "", :finish)])
    assert byte_size(bomb) < 1_000_000
    assert Archive.unpack(bomb) == {:error, "it unpacks to more than 100000000 bytes"}
  end

  describe "checksums" do
    test "of a folder are written as rustler_precompiled writes them, and read again", %{tmp_dir: dir} do
      folder = libraries(dir)
      name = Archive.name("0.1.0", "aarch64-apple-darwin")
      :ok = Archive.pack(folder, Path.join(dir, name))
      path = Path.join(dir, Checksums.file_name())

      assert {:ok, written} = Checksums.write(path, dir)
      assert Map.keys(written) == [name]
      {evaluated, _} = Code.eval_file(path)
      assert evaluated == %{name => "sha256:" <> Checksums.sha256(File.read!(Path.join(dir, name)))}
      assert Checksums.read(path) == {:ok, written}
      assert File.read!(path) == "%{\n  #{inspect(name)} => #{inspect(evaluated[name])}\n}\n"
    end

    test "without archives are an error", %{tmp_dir: dir} do
      assert Checksums.write(Path.join(dir, "c.exs"), dir) == {:error, "there is no archive in #{dir}"}
    end

    test "a file that is something else is refused, and not run", %{tmp_dir: dir} do
      path = Path.join(dir, "c.exs")

      for text <- [
            ~s|File.write!("#{dir}/ran", "")|,
            ~s|%{"a" => File.write!("#{dir}/ran", "")}|,
            ~s(%{"a" => "md5:00"}),
            ~s(%{"a" => "sha256:00"}),
            "%{"
          ] do
        File.write!(path, text)
        assert {:error, message} = Checksums.read(path)
        assert message == "#{path} is not a list of checksums. Fetch the package again."
      end

      refute File.exists?(Path.join(dir, "ran"))
      assert Checksums.read(Path.join(dir, "none.exs")) == {:ok, %{}}
    end

    test "the newest archive that the VM can load is chosen" do
      linux = "x86_64-unknown-linux-gnu"

      checksums = for nif <- ["2.15", "2.17", "3.0"], into: %{}, do: {Archive.name("1.0.0", linux, nif), nif}

      assert {:ok, %{sha256: "2.17"}} = Checksums.select(checksums, "1.0.0", linux, "2.17")
      assert {:ok, %{sha256: "2.17"}} = Checksums.select(checksums, "1.0.0", linux, "2.18")
      assert {:ok, %{sha256: "2.15"}} = Checksums.select(checksums, "1.0.0", linux, "2.16")
      assert {:ok, %{sha256: "3.0"}} = Checksums.select(checksums, "1.0.0", linux, "3.4")

      assert {:error, {:nif_version, ["2.15", "2.17", "3.0"]}} =
               Checksums.select(checksums, "1.0.0", linux, "2.14")

      assert {:error, {:target, [^linux]}} = Checksums.select(checksums, "1.0.0", "mips-linux", "2.17")
      assert :unreleased = Checksums.select(checksums, "1.0.1", linux, "2.17")
      assert :unreleased = Checksums.select(%{}, "1.0.0", linux, "2.17")
    end
  end
end
