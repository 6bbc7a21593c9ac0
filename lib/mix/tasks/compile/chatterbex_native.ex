defmodule Mix.Tasks.Compile.ChatterbexNative do
  @shortdoc "Compiles the native libraries of Chatterbex with Cargo"

  @moduledoc """
  Compiles the native libraries of Chatterbex with Cargo.

  It runs as part of `mix compile`. The crates under `native/` are built with
  `cargo build --release --locked` and the four libraries are put into `priv/native`:
  `libpython.so`, `audio.so`, `engine.so` and `t3.so` (the VM wants `.so` on macOS too). No
  Python is needed for that. If no source has changed, Cargo does not run; with `--force` it does.

  ## Environment

    * `CHATTERBEX_NATIVE_DIR` - a folder with the four libraries, built elsewhere: nothing is
      compiled, and no Rust is needed. It is read when Chatterbex is compiled and again when it
      runs.
    * `CARGO_HOME` - where to look for Cargo if it is not in the `PATH` (default `~/.cargo`).

  `RUSTFLAGS` and `CARGO_BUILD_TARGET` are not passed on: the libraries must be what the VM on this
  machine can load.
  """

  use Mix.Task.Compiler

  defmodule Output do
    @moduledoc false
    # Shows the output of a command as it arrives, and keeps it.
    defstruct [:show, said: [], cut: ""]

    # A character may be cut in two between one piece and the next.
    def add(output, piece) do
      {whole, cut} =
        case :unicode.characters_to_binary(output.cut <> piece) do
          {:incomplete, whole, cut} -> {whole, cut}
          {:error, whole, _} -> {whole, ""}
          whole -> {whole, ""}
        end

      output.show.(whole)
      %{output | said: [output.said, whole], cut: cut}
    end

    defimpl Collectable do
      def into(output) do
        collect = fn
          output, {:cont, piece} -> @for.add(output, piece)
          output, :done -> IO.iodata_to_binary(output.said)
          _output, :halt -> :ok
        end

        {output, collect}
      end
    end
  end

  alias Chatterbex.Files.Replacement
  alias Mix.Task.Compiler.Diagnostic

  # Library in priv/native => what Cargo calls it.
  @libraries %{
    "libpython.so" => "chatterbex_libpython",
    "audio.so" => "chatterbex_audio",
    "engine.so" => "chatterbex_engine",
    "t3.so" => "chatterbex_t3"
  }

  @manifest_version 1
  @last_lines 30
  @not_passed_on ~w(RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET)

  @install "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

  @impl true
  def run(args) do
    options = Map.put(defaults(), :force, "--force" in args)

    case build(options) do
      {:error, message} ->
        Mix.shell().error(message)
        {:error, [diagnostic(message)]}

      status ->
        {status, []}
    end
  end

  @impl true
  def manifests, do: [manifest_path(defaults())]

  @impl true
  def clean do
    options = defaults()
    File.rm(manifest_path(options))
    Enum.each(library_paths(options), &File.rm/1)
  end

  # Public for its tests: everything that depends on the machine is an option.
  @doc false
  @spec build(map) :: :ok | :noop | {:error, String.t()}
  def build(%{prebuilt: folder}) when folder not in [nil, ""], do: check_prebuilt(folder)

  def build(options) do
    sources = sources(options.native)

    cond do
      sources == [] ->
        {:error,
         "The sources of Chatterbex's native libraries are not in #{options.native}. " <>
           "Fetch the package again, or set CHATTERBEX_NATIVE_DIR to a folder with built libraries."}

      not options.force and fresh?(options, sources) ->
        :noop

      true ->
        with {:ok, cargo} <- find_cargo(options.cargo),
             :ok <- check_rust(cargo, options.native),
             :ok <- cargo_build(cargo, options),
             :ok <- install(options) do
          write_manifest(options, sources)
        end
    end
  end

  defp defaults do
    root = File.cwd!()

    %{
      native: Path.join(root, "native"),
      output: Path.join([root, "priv", "native"]),
      force: false,
      prebuilt: System.get_env("CHATTERBEX_NATIVE_DIR"),
      cargo: cargo_candidates()
    }
  end

  defp diagnostic(message) do
    %Diagnostic{
      compiler_name: "chatterbex_native",
      file: Path.join(File.cwd!(), "native/Cargo.toml"),
      message: message,
      position: 0,
      severity: :error
    }
  end

  ## Prebuilt libraries

  defp check_prebuilt(folder) do
    missing = for {library, _} <- @libraries, not File.regular?(Path.join(folder, library)), do: library

    if missing == [] do
      :noop
    else
      {:error,
       "CHATTERBEX_NATIVE_DIR is #{folder}, where #{Enum.join(Enum.sort(missing), ", ")} " <>
         "cannot be found. Put the libraries there, or unset it to compile them."}
    end
  end

  ## What has changed

  defp sources(native) do
    patterns = [
      "Cargo.{toml,lock}",
      ".cargo/config.toml",
      "*/Cargo.toml",
      "*/build.rs",
      "*/src/**/*.rs"
    ]

    patterns
    |> Enum.flat_map(&Path.wildcard(Path.join(native, &1), match_dot: true))
    |> Enum.reject(&String.starts_with?(&1, Path.join(native, "target/")))
    |> Enum.sort()
  end

  defp fresh?(options, sources) do
    case read_manifest(options) do
      {:ok, manifest} -> manifest == manifest(options, sources) and installed?(options)
      :error -> false
    end
  end

  defp installed?(options) do
    Enum.all?(library_paths(options), &File.regular?/1)
  end

  # Kept with Cargo's own output: every Mix environment shares the libraries.
  defp manifest_path(options), do: Path.join(target(options), "chatterbex_native.manifest")

  defp manifest(options, sources) do
    {@manifest_version, fingerprints(sources), fingerprints(library_paths(options))}
  end

  defp library_paths(options) do
    for {library, _} <- @libraries, do: Path.join(options.output, library)
  end

  defp fingerprints(paths) do
    for path <- paths do
      case File.stat(path, time: :posix) do
        {:ok, stat} -> {path, stat.mtime, stat.size}
        {:error, reason} -> {path, reason}
      end
    end
  end

  defp read_manifest(options) do
    with {:ok, binary} <- File.read(manifest_path(options)) do
      {:ok, :erlang.binary_to_term(binary, [:safe])}
    else
      _ -> :error
    end
  rescue
    ArgumentError -> :error
  end

  defp write_manifest(options, sources) do
    path = manifest_path(options)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, :erlang.term_to_binary(manifest(options, sources)))
    :ok
  end

  ## Cargo

  # A shell that was open while Rust was installed does not have Cargo in its PATH yet.
  defp cargo_candidates do
    home = System.get_env("CARGO_HOME") || Path.join(System.user_home() || "/", ".cargo")
    [System.find_executable("cargo"), Path.join([home, "bin", "cargo"])]
  end

  defp find_cargo(candidates) do
    case Enum.find(candidates, &(&1 && File.regular?(&1))) do
      nil ->
        {:error,
         "Rust is needed to compile Chatterbex's native libraries, and `cargo` was not found. " <>
           "Install it with:\n\n    #{@install}\n\n" <>
           "then open a new shell and compile again. With libraries built elsewhere, set " <>
           "CHATTERBEX_NATIVE_DIR to their folder instead."}

      cargo ->
        {:ok, cargo}
    end
  end

  # Checked first, because the error messages of an old Cargo do not help.
  defp check_rust(cargo, native) do
    with {output, 0} <- cargo(cargo, ["--version"], native),
         [_, found] <- Regex.run(~r/(\d+\.\d+\.\d+)/, output),
         {:ok, needed} <- needed_rust(native) do
      if Version.compare(found, needed) == :lt do
        {:error,
         "Chatterbex's native libraries need Rust #{needed} or newer, and #{cargo} is #{found}. " <>
           "Update it with `rustup update stable`, or where Rust came with the system, install " <>
           "the current one with:\n\n    #{@install}\n"}
      else
        :ok
      end
    else
      {output, status} when is_integer(status) ->
        {:error, "`#{cargo} --version` failed (exit status #{status}):\n\n#{String.trim(output)}\n"}

      # A version in an unknown form: let Cargo decide.
      _ ->
        :ok
    end
  end

  defp needed_rust(native) do
    with {:ok, toml} <- File.read(Path.join(native, "Cargo.toml")),
         [_, version] <- Regex.run(~r/^rust-version = "(\d+\.\d+)"/m, toml) do
      {:ok, version <> ".0"}
    else
      _ -> :error
    end
  end

  defp cargo_build(cargo, options) do
    say("Compiling the native libraries (Rust)")
    environment = [{"CARGO_TARGET_DIR", target(options)} | terminal()]
    args = ["build", "--release", "--locked"]

    case cargo(cargo, args, options.native, environment, &show/1) do
      {_, 0} ->
        :ok

      {output, status} ->
        {:error,
         "Cargo could not compile Chatterbex's native libraries (exit status #{status}). " <>
           "Its last lines:\n\n#{last_lines(output)}\n"}
    end
  end

  defp cargo(cargo, args, folder, environment \\ [], show \\ fn _ -> :ok end) do
    unset = for name <- @not_passed_on, do: {name, nil}

    # rustc is next to Cargo, and may be found only there.
    path = Path.dirname(cargo) <> ":" <> (System.get_env("PATH") || "")

    System.cmd(cargo, args,
      cd: folder,
      env: unset ++ [{"PATH", path} | environment],
      stderr_to_stdout: true,
      into: %Output{show: show}
    )
  end

  defp target(options), do: Path.join(options.native, "target")

  # Cargo draws its progress bar only on a terminal, and a port is not one.
  defp terminal do
    with true <- IO.ANSI.enabled?(), {:ok, columns} <- :io.columns() do
      [
        {"CARGO_TERM_COLOR", "always"},
        {"CARGO_TERM_PROGRESS_WHEN", "always"},
        {"CARGO_TERM_PROGRESS_WIDTH", Integer.to_string(columns)}
      ]
    else
      _ -> []
    end
  end

  defp say(text), do: Mix.shell().info(text)

  defp show(text) do
    if Mix.shell() == Mix.Shell.IO, do: IO.write(text)
    :ok
  end

  defp last_lines(output) do
    output
    |> String.replace(~r/\e\[[0-9;]*[A-Za-z]/, "")
    |> String.split(["\r\n", "\n", "\r"])
    |> Enum.map(&String.trim_trailing/1)
    |> Enum.reject(&(&1 == ""))
    |> Enum.take(-@last_lines)
    |> Enum.join("\n")
  end

  ## Putting the libraries where the VM finds them

  defp install(options) do
    File.mkdir_p!(options.output)

    Enum.reduce_while(@libraries, :ok, fn {library, crate}, :ok ->
      built = Path.join([target(options), "release", built_name(crate)])

      case install_one(built, Path.join(options.output, library)) do
        :ok ->
          {:cont, :ok}

        {:error, reason} ->
          {:halt, {:error, "Cannot put #{library} into #{options.output}: #{:file.format_error(reason)}"}}
      end
    end)
  end

  defp built_name(crate) do
    case :os.type() do
      {:unix, :darwin} -> "lib#{crate}.dylib"
      _ -> "lib#{crate}.so"
    end
  end

  # A running VM may have the old library mapped: its file must be replaced, never written to.
  defp install_one(from, to) do
    with {:ok, library} <- File.read(from) do
      if File.read(to) == {:ok, library}, do: :ok, else: Replacement.write(to, library)
    end
  end
end
