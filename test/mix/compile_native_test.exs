defmodule Mix.Tasks.Compile.ChatterbexNativeTest do
  # Alone: :httpc has one profile for all downloads of the VM.
  use ExUnit.Case, async: false

  import Chatterbex.ArchiveServer, only: [cut: 2, response: 2]
  import ExUnit.CaptureIO

  alias Chatterbex.ArchiveServer
  alias Chatterbex.Native.{Archive, Checksums, Precompiled}
  alias Mix.Tasks.Compile.ChatterbexNative, as: Compiler

  @moduletag :tmp_dir
  @libraries ~w(audio.so engine.so libpython.so t3.so)
  @target "x86_64-unknown-linux-gnu"

  # A Cargo that writes down how it was called and leaves libraries whose content is the lock file's.
  @cargo """
  #!/bin/sh
  echo "$@ target=$CARGO_TARGET_DIR flags=$RUSTFLAGS" >> "$(dirname "$0")/calls"
  if [ "$1" = "--version" ]; then echo "cargo VERSION (abc 2026-01-01)"; exit 0; fi
  echo "   Compiling something v1.0.0"
  mkdir -p "$CARGO_TARGET_DIR/release"
  for crate in chatterbex_libpython chatterbex_audio chatterbex_engine chatterbex_t3; do
    for ending in so dylib; do
      cp Cargo.lock "$CARGO_TARGET_DIR/release/lib$crate.$ending"
    done
  done
  """

  setup %{tmp_dir: folder} do
    native = Path.join(folder, "native")
    File.mkdir_p!(Path.join(native, "audio/src"))
    File.write!(Path.join(native, "Cargo.toml"), ~s([workspace.package]\nrust-version = "1.91"\n))
    File.write!(Path.join(native, "Cargo.lock"), "first")
    File.write!(Path.join(native, "audio/src/lib.rs"), "")

    options = %{
      native: native,
      output: Path.join(folder, "priv/native"),
      checksums: Path.join(folder, Checksums.file_name()),
      version: "1.2.3",
      target: %{name: @target, cross?: false},
      nif_version: "2.16",
      precompiled: %{url: "http://127.0.0.1:1/closed", cache: Path.join(folder, "cache"), env: %{}, wait: 0},
      directory: nil,
      build: false,
      force: false,
      cargo: [nil, cargo(folder, @cargo)]
    }

    {:ok, options: options, folder: folder}
  end

  defp cargo(folder, script, version \\ "1.95.0") do
    path = Path.join(folder, "bin/cargo")
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, String.replace(script, "VERSION", version))
    File.chmod!(path, 0o755)
    path
  end

  defp build(options) do
    parent = self()
    output = capture_io(fn -> send(parent, {:built, Compiler.build(options)}) end)
    assert_received {:built, result}
    {result, output}
  end

  defp calls(folder) do
    case File.read(Path.join(folder, "bin/calls")) do
      {:ok, calls} -> String.split(calls, "\n", trim: true)
      {:error, :enoent} -> []
    end
  end

  defp inode(options, library), do: File.stat!(Path.join(options.output, library)).inode

  test "builds in release mode with the locked versions and shows Cargo's progress", context do
    {result, output} = build(context.options)

    assert result == :ok
    assert output =~ "Compiling something"
    assert Enum.sort(File.ls!(context.options.output)) == @libraries
    assert [_version, call] = calls(context.folder)
    assert call =~ "build --release --locked target=#{context.options.native}/target flags="
  end

  test "does not ask Cargo when nothing has changed", %{options: options, folder: folder} do
    assert {:ok, _} = build(options)
    before = calls(folder)

    assert {:noop, ""} = build(options)
    assert calls(folder) == before
    assert {:ok, _} = build(%{options | force: true})
    assert length(calls(folder)) == 2 * length(before)
  end

  test "builds again when a source, the lock file or a library changed", %{options: options} do
    assert {:ok, _} = build(options)

    for path <- ["audio/src/lib.rs", "audio/src/new.rs", "Cargo.lock", ".cargo/config.toml"] do
      path = Path.join(options.native, path)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, "changed: #{path}")
      assert {:ok, _} = build(options)
      assert {:noop, _} = build(options)
    end

    File.rm!(Path.join(options.output, "audio.so"))
    assert {:ok, _} = build(options)
    assert File.regular?(Path.join(options.output, "audio.so"))
  end

  test "replaces a library's file and never writes into it", %{options: options} do
    assert {:ok, _} = build(options)
    first = inode(options, "engine.so")
    # Held open, so that the number of the old file is not given to the new one.
    {:ok, mapped} = File.open(Path.join(options.output, "engine.so"))

    assert {:ok, _} = build(%{options | force: true})
    assert inode(options, "engine.so") == first

    File.write!(Path.join(options.native, "Cargo.lock"), "second")
    assert {:ok, _} = build(options)
    refute inode(options, "engine.so") == first
    assert IO.read(mapped, :eof) == "first"
    assert File.read!(Path.join(options.output, "engine.so")) == "second"
    assert Enum.sort(File.ls!(options.output)) == @libraries
  end

  test "a manifest that cannot be read is no reason to fail", %{options: options} do
    assert {:ok, _} = build(options)
    File.write!(Path.join(options.native, "target/chatterbex_native.manifest"), "garbage")
    assert {:ok, _} = build(options)
  end

  test "missing Cargo comes with the command that installs it", %{options: options} do
    assert {{:error, message}, ""} = build(%{options | cargo: [nil, "/nowhere/cargo"]})
    assert message =~ "`cargo` was not found"
    assert message =~ "https://sh.rustup.rs"
    assert message =~ "CHATTERBEX_NATIVE_DIR"
  end

  test "a Rust that is too old is named with the one that is needed", context do
    options = %{context.options | cargo: [cargo(context.folder, @cargo, "1.63.0")]}
    assert {{:error, message}, ""} = build(options)
    assert message =~ "need Rust 1.91.0 or newer"
    assert message =~ "is 1.63.0"
    refute Enum.any?(calls(context.folder), &(&1 =~ "build"))
  end

  test "a failed build gives Cargo's last lines", context do
    script = """
    #!/bin/sh
    if [ "$1" = "--version" ]; then echo "cargo 1.95.0"; exit 0; fi
    for line in $(seq 100); do echo "line $line"; done
    printf '\\033[1merror\\033[0m: mismatched types \\342\\200\\224 here\\n' >&2
    exit 101
    """

    options = %{context.options | cargo: [cargo(context.folder, script)]}
    assert {{:error, message}, shown} = build(options)
    assert message =~ "exit status 101"
    assert message =~ "error: mismatched types — here"
    assert message =~ "line 99"
    refute message =~ "line 12\n"
    assert shown =~ "line 12\n"
    refute File.exists?(options.output)
  end

  test "libraries built elsewhere are used as they are", %{options: options, folder: folder} do
    prebuilt = Path.join(folder, "prebuilt")
    File.mkdir_p!(prebuilt)
    for library <- @libraries, do: File.write!(Path.join(prebuilt, library), "")

    assert {:noop, ""} = build(%{options | directory: prebuilt, cargo: []})
    assert calls(folder) == []

    File.rm!(Path.join(prebuilt, "audio.so"))
    assert {{:error, message}, ""} = build(%{options | directory: prebuilt})
    assert message =~ prebuilt
    assert message =~ "audio.so"
    refute message =~ "libpython.so"
  end

  test "missing sources are an error with a remedy", %{options: options} do
    assert {{:error, message}, ""} = build(%{options | native: "/nowhere/native"})
    assert message =~ "/nowhere/native"
    assert message =~ "CHATTERBEX_NATIVE_DIR"
  end

  describe "a release with prebuilt libraries" do
    setup %{options: options, folder: folder} do
      libraries = Path.join(folder, "libraries")
      File.mkdir_p!(libraries)
      for name <- @libraries, do: File.write!(Path.join(libraries, name), "prebuilt #{name}")
      name = Archive.name("1.2.3", @target)
      served = Path.join(folder, "served")
      :ok = Archive.pack(libraries, Path.join(served, name))
      {:ok, %{^name => sha256}} = Checksums.write(options.checksums, served)
      {:ok, name: name, archive: File.read!(Path.join(served, name)), sha256: sha256}
    end

    defp serve(options, answer) do
      put_in(options.precompiled.url, "http://127.0.0.1:#{ArchiveServer.start(answer)}/v1.2.3/")
    end

    defp refused(options) do
      assert {{:error, message}, _shown} = build(options)
      refute File.exists?(options.output)
      message
    end

    defp installed(options) do
      for name <- options.output |> File.ls!() |> Enum.sort(),
          do: {name, File.read!(Path.join(options.output, name))}
    end

    defp prebuilt, do: for(name <- @libraries, do: {name, "prebuilt #{name}"})

    defp cached(options, name), do: Path.join(options.precompiled.cache, name)

    test "fetches, checks and installs them, without Cargo and once", context do
      options = serve(%{context.options | cargo: []}, fn _ -> response(200, context.archive) end)
      path = "/v1.2.3/" <> context.name

      assert {:ok, shown} = build(options)
      assert shown == "Fetching the native libraries from #{options.precompiled.url}\n"
      assert installed(options) == prebuilt()
      assert_received {:request, "GET", ^path, _headers}

      assert {:noop, ""} = build(options)
      # The archive was kept.
      assert {:ok, ""} = build(%{options | force: true})
      File.rm!(Path.join(options.output, "t3.so"))
      assert {:ok, ""} = build(options)
      assert installed(options) == prebuilt()
      refute_received {:request, _, _, _}
    end

    test "installs others where the package lists others", context do
      assert {:ok, _} = context.options |> serve(fn _ -> response(200, context.archive) end) |> build()
      libraries = Path.join(context.folder, "libraries")
      File.write!(Path.join(libraries, "t3.so"), "changed")
      served = Path.join(context.folder, "served")
      :ok = Archive.pack(libraries, Path.join(served, context.name))
      {:ok, _checksums} = Checksums.write(context.options.checksums, served)
      archive = File.read!(Path.join(served, context.name))

      assert {:ok, _} = context.options |> serve(fn _ -> response(200, archive) end) |> build()
      assert List.keyfind(installed(context.options), "t3.so", 0) == {"t3.so", "changed"}
    end

    test "compiles them if asked to", context do
      options = serve(context.options, fn _ -> response(200, context.archive) end)
      assert {:ok, _} = build(options)
      assert {:ok, shown} = build(%{options | build: true})
      assert shown =~ "Compiling something"
      assert installed(options) == for(name <- @libraries, do: {name, "first"})
      assert {:noop, ""} = build(%{options | build: true})
      assert {:ok, ""} = build(options)
      assert installed(options) == prebuilt()
    end

    test "replaces a library's file and never writes into it", context do
      options = serve(context.options, fn _ -> response(200, context.archive) end)
      assert {:ok, _} = build(%{options | build: true})
      {:ok, mapped} = File.open(Path.join(options.output, "engine.so"))
      assert {:ok, _} = build(options)
      assert IO.read(mapped, :eof) == "first"
      assert Enum.sort(File.ls!(options.output)) == @libraries
    end

    test "an archive with another checksum is refused, and not kept", context do
      other = context.archive <> "x"
      options = serve(context.options, fn _ -> response(200, other) end)
      message = refused(options)

      assert message =~
               "The prebuilt libraries of Chatterbex 1.2.3 for #{@target} could not be installed: cannot fetch"

      assert message =~ options.precompiled.url <> context.name

      assert message =~
               "its SHA-256 is #{Checksums.sha256(other)}, but this version of Chatterbex expects #{context.sha256}"

      refute File.exists?(cached(options, context.name))
      # Where there is a Cargo, too, it is not a way round.
      assert calls(context.folder) == []
    end

    test "a cut connection, a 404 and no server are errors that say what to do", context do
      cut = serve(context.options, fn _ -> cut(context.archive, div(byte_size(context.archive), 2)) end)
      not_found = serve(context.options, fn _ -> response(404, "") end)

      for {options, reason} <- [
            {cut, "cannot fetch"},
            {not_found, "the server answered 404"},
            {context.options, "connection refused"}
          ] do
        message = refused(options)
        assert message =~ @target
        assert message =~ reason

        for way <-
              ~w(HTTPS_PROXY CHATTERBEX_PRECOMPILED_URL RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH CHATTERBEX_BUILD=1),
            do: assert(message =~ way)

        refute File.exists?(cached(options, context.name))
      end

      assert calls(context.folder) == []
    end

    test "come from a folder where there is no network", context do
      cached = cached(context.options, context.name)
      File.mkdir_p!(Path.dirname(cached))
      File.write!(cached, context.archive)
      assert {:ok, ""} = build(context.options)
      assert installed(context.options) == prebuilt()
    end

    test "a file of the folder that is not the right one is fetched again", context do
      cached = cached(context.options, context.name)
      File.mkdir_p!(Path.dirname(cached))
      File.write!(cached, "another")

      message = refused(context.options)
      assert message =~ "connection refused. #{cached} cannot be used: its SHA-256 is"

      options = serve(context.options, fn _ -> response(200, context.archive) end)
      assert {:ok, _} = build(options)
      assert installed(options) == prebuilt()
      assert File.read!(cached) == context.archive
    end

    test "a folder that cannot be written to only costs the next download", context do
      File.write!(context.options.precompiled.cache, "a file in its place")
      options = serve(context.options, fn _ -> response(200, context.archive) end)
      assert {:ok, _} = build(options)
      assert installed(options) == prebuilt()
    end

    test "an archive with the right checksum that holds something else is refused", context do
      tar = Path.join(context.folder, "other.tar")
      :ok = :erl_tar.create(tar, [{~c"../../escaped.so", "x"}])
      archive = tar |> File.read!() |> :zlib.gzip()

      File.write!(
        context.options.checksums,
        ~s(%{"#{context.name}" => "sha256:#{Checksums.sha256(archive)}"})
      )

      message = context.options |> serve(fn _ -> response(200, archive) end) |> refused()
      assert message =~ ~s|#{context.name} cannot be unpacked: it holds "../../escaped.so" (regular)|
      assert Path.wildcard(Path.join(context.folder, "**/escaped.so")) == []
    end

    test "a proxy is asked for them", context do
      proxy = ArchiveServer.start(fn _ -> response(200, context.archive) end)

      precompiled = %{
        context.options.precompiled
        | url: "http://releases.invalid",
          env: %{"HTTP_PROXY" => "127.0.0.1:#{proxy}"}
      }

      assert {:ok, _} = build(%{context.options | precompiled: precompiled})
      assert installed(context.options) == prebuilt()
    end

    test "a machine that has none compiles them, and says so", context do
      options = %{context.options | target: %{name: "mips-unknown-linux-gnu", cross?: false}}
      assert {:ok, shown} = build(options)

      assert shown =~
               "Chatterbex 1.2.3 has no prebuilt libraries for mips-unknown-linux-gnu, only for #{@target}."

      assert shown =~ "Compiling something"
      assert {:noop, ""} = build(options)
    end

    test "a machine that has none, and no Cargo, gets an error that names it", context do
      options = %{context.options | cargo: [], target: %{name: "mips-unknown-linux-gnu", cross?: false}}
      message = refused(options)
      assert message =~ "no prebuilt libraries for mips-unknown-linux-gnu, only for #{@target}."
      assert message =~ "`cargo` was not found"
      assert message =~ "CHATTERBEX_BUILD=1"
      assert message =~ "CHATTERBEX_NATIVE_DIR"

      assert refused(put_in(options.target.name, "x86_64-unknown-linux-musl")) =~ "do not run on musl"
      assert refused(put_in(options.target.name, "x86_64-pc-windows-msvc")) =~ "use WSL 2"
    end

    test "an older VM is told which NIF version it needs", context do
      options = %{context.options | cargo: [], nif_version: "2.14"}

      assert refused(options) =~
               "for #{@target} need NIF version 2.15 or newer, and this VM has 2.14. Use a newer OTP."
    end

    test "another machine is not compiled for, and gets its archive", context do
      options = %{context.options | target: %{name: "mips-unknown-linux-gnu", cross?: true}}
      assert refused(options) =~ "only for the machine that it is compiled on"

      assert refused(%{options | version: "1.2.4"}) =~
               "A development version of Chatterbex has no prebuilt libraries."

      assert calls(context.folder) == []

      options = %{context.options | target: %{name: @target, cross?: true}}
      options = serve(options, fn _ -> response(200, context.archive) end)
      assert {:ok, _} = build(options)
      assert installed(options) == prebuilt()
    end

    test "another version than the list's is a development version", context do
      assert {:ok, shown} = build(%{context.options | version: "1.2.4"})
      assert shown =~ "Compiling something"
      refute shown =~ "prebuilt"
    end

    test "a list that cannot be read is an error", context do
      File.write!(context.options.checksums, "nonsense(")
      assert refused(context.options) =~ "is not a list of checksums"
    end
  end

  test "the mirror and the folder come from the environment" do
    assert %{url: "https://a.example/b", cache: cache} = Precompiled.options("https://a.example/b", %{})
    assert cache =~ "rustler_precompiled/precompiled_nifs"

    env = %{
      "CHATTERBEX_PRECOMPILED_URL" => "http://m",
      "RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH" => "/archives"
    }

    assert %{url: "http://m", cache: "/archives", env: ^env} = Precompiled.options("https://a.example/b", env)
  end

  test "a mirror's password is not shown, and a mirror that is a folder gets the variable for that",
       context do
    options = context.options
    archive = %{name: "a.tar.gz", sha256: ""}

    install = fn url ->
      precompiled = %{options.precompiled | url: url}
      capture_io(fn -> send(self(), Precompiled.install(archive, options.output, precompiled)) end)
    end

    refute install.("http://ann:secret@127.0.0.1:1/") =~ "secret"
    assert_received {:error, "cannot fetch http://***@127.0.0.1:1/a.tar.gz: no connection" <> _}

    install.("ftp://127.0.0.1:1")

    assert_received {:error,
                     "cannot fetch ftp://127.0.0.1:1/a.tar.gz: CHATTERBEX_PRECOMPILED_URL must begin" <> _}

    install.("file:///archives")

    assert_received {:error,
                     "cannot fetch file:///archives/a.tar.gz: CHATTERBEX_PRECOMPILED_URL must begin" <> _}
  end
end
