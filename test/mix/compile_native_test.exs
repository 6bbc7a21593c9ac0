defmodule Mix.Tasks.Compile.ChatterbexNativeTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias Mix.Tasks.Compile.ChatterbexNative, as: Compiler

  @moduletag :tmp_dir
  @libraries ~w(audio.so engine.so libpython.so t3.so)

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
      prebuilt: nil,
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
    assert IO.read(mapped, :all) == "first"
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

    assert {:noop, ""} = build(%{options | prebuilt: prebuilt, cargo: []})
    assert calls(folder) == []

    File.rm!(Path.join(prebuilt, "audio.so"))
    assert {{:error, message}, ""} = build(%{options | prebuilt: prebuilt})
    assert message =~ prebuilt
    assert message =~ "audio.so"
    refute message =~ "libpython.so"
  end

  test "missing sources are an error with a remedy", %{options: options} do
    assert {{:error, message}, ""} = build(%{options | native: "/nowhere/native"})
    assert message =~ "/nowhere/native"
    assert message =~ "CHATTERBEX_NATIVE_DIR"
  end
end
