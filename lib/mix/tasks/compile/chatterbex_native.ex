defmodule Mix.Tasks.Compile.ChatterbexNative do
  @shortdoc "Installs the native libraries of Chatterbex, prebuilt or compiled"

  @moduledoc """
  Installs the native libraries of Chatterbex, prebuilt or compiled.

  It runs as part of `mix compile` and puts four libraries into `priv/native`: `libpython.so`,
  `audio.so`, `engine.so` and `t3.so` (the VM wants `.so` on macOS too). If nothing has changed, it
  does nothing; with `--force` it installs them again.

  A release of Chatterbex lists its prebuilt libraries with their SHA-256 in the package. If there are
  some for this machine, they are fetched, checked and unpacked. If they cannot be fetched, or are not
  the expected ones, the compilation fails. It does not fall back to the sources. Otherwise (for this
  machine there are none, or this is a checkout of the repository), the crates under `native/` are
  compiled with `cargo build --release --locked`. That needs Rust, but no Python.

  ## Environment

    * `CHATTERBEX_BUILD` - with `1` or `true`, the libraries are compiled even if there are prebuilt
      ones.
    * `CHATTERBEX_NATIVE_DIR` - a folder with the four libraries, unpacked: nothing is fetched and
      nothing compiled. It is read when Chatterbex is compiled and again when it runs.
    * `CHATTERBEX_PRECOMPILED_URL` - a mirror: the folder to fetch archives from, `https://` or
      `http://`. By default they come from the release's page on GitHub.
    * `RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH` - the folder to look for archives in before they are
      fetched, and to keep them in. With the archive in it, no network is needed.
    * `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` - the proxy, and the hosts to connect to without it.
    * `HEX_CACERTS_PATH` - a PEM file with the certificates to trust, instead of the system's.
    * `TARGET_ARCH`, `TARGET_OS`, `TARGET_ABI`, `TARGET_VENDOR` - the machine that you compile for, if
      it is another one. Nerves sets them.
    * `CARGO_HOME` - where to look for Cargo if it is not in the `PATH` (default `~/.cargo`).

  `RUSTFLAGS` and `CARGO_BUILD_TARGET` are not passed on to Cargo: the libraries must be what the VM on
  this machine can load.
  """

  use Mix.Task.Compiler

  alias Chatterbex.Native.{Cargo, Checksums, Library, Manifest, Precompiled, Target}
  alias Mix.Task.Compiler.Diagnostic

  @instead "Set CHATTERBEX_BUILD=1 to compile the libraries on this machine, which needs Rust, or " <>
             "CHATTERBEX_NATIVE_DIR to a folder with libraries built elsewhere."

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
  def manifests, do: [manifest(defaults())]

  @impl true
  def clean do
    options = defaults()
    File.rm(manifest(options))
    Enum.each(libraries(options), &File.rm/1)
  end

  # Public for its tests: everything that depends on the machine is an option.
  @doc false
  @spec build(map) :: :ok | :noop | {:error, String.t()}
  def build(%{directory: folder}) when folder not in [nil, ""], do: check_directory(folder)

  def build(options) do
    with {:ok, origin, note} <- origin(options) do
      if not options.force and Manifest.fresh?(manifest(options), origin, libraries(options)) do
        :noop
      else
        if note, do: Mix.shell().info(note)

        with :ok <- install(origin, options),
             do: Manifest.write(manifest(options), origin, libraries(options))
      end
    end
  end

  defp defaults do
    root = File.cwd!()
    project = Mix.Project.config()
    env = System.get_env()
    release = "#{project[:source_url]}/releases/download/v#{project[:version]}"

    %{
      native: Path.join(root, "native"),
      output: Path.join([root, "priv", "native"]),
      checksums: Path.join(root, Checksums.file_name()),
      version: project[:version],
      target: Target.detect(),
      nif_version: to_string(:erlang.system_info(:nif_version)),
      precompiled: Precompiled.options(release, env),
      force: false,
      build: env["CHATTERBEX_BUILD"] in ["1", "true"],
      directory: env["CHATTERBEX_NATIVE_DIR"],
      cargo: Cargo.candidates()
    }
  end

  # Kept with Cargo's own output: every Mix environment shares the libraries.
  defp manifest(options), do: Path.join(Cargo.target(options.native), "chatterbex_native.manifest")

  defp libraries(options), do: for(name <- Library.files(), do: Path.join(options.output, name))

  defp diagnostic(message) do
    %Diagnostic{
      compiler_name: "chatterbex_native",
      file: Path.join(File.cwd!(), "native/Cargo.toml"),
      message: message,
      position: 0,
      severity: :error
    }
  end

  defp check_directory(folder) do
    missing = for name <- Library.files(), not File.regular?(Path.join(folder, name)), do: name

    if missing == [] do
      :noop
    else
      {:error,
       "CHATTERBEX_NATIVE_DIR is #{folder}, where #{Enum.join(missing, ", ")} " <>
         "cannot be found. Put the libraries there, or unset it to install them."}
    end
  end

  ## Where the libraries come from

  defp origin(%{build: true} = options), do: sources(options, nil)

  defp origin(options) do
    %{version: version, target: target, nif_version: nif_version} = options

    with {:ok, checksums} <- Checksums.read(options.checksums) do
      case Checksums.select(checksums, version, target.name, nif_version) do
        {:ok, archive} -> {:ok, {:archive, archive}, nil}
        :unreleased -> sources_here(options, nil)
        {:error, why} -> sources_here(options, no_archive(why, options))
      end
    end
  end

  defp no_archive({:target, targets}, %{version: version, target: target}) do
    "Chatterbex #{version} has no prebuilt libraries for #{target.name}, only for #{Enum.join(targets, ", ")}." <>
      Target.hint(target.name)
  end

  defp no_archive({:nif_version, versions}, %{version: version, target: target, nif_version: nif_version}) do
    "The prebuilt libraries of Chatterbex #{version} for #{target.name} need NIF version " <>
      "#{Enum.join(versions, " or ")} or newer, and this VM has #{nif_version}. Use a newer OTP."
  end

  # What Cargo builds here, a machine of another kind cannot load.
  defp sources_here(%{target: %{cross?: true, name: name}}, note) do
    {:error,
     "#{note || "A development version of Chatterbex has no prebuilt libraries."} TARGET_ARCH and the like name " <>
       "#{name}, and Chatterbex compiles its libraries only for the machine that it is compiled on. Set " <>
       "CHATTERBEX_NATIVE_DIR to a folder with libraries for #{name}."}
  end

  defp sources_here(options, nil), do: sources(options, nil)

  defp sources_here(options, note) do
    case Cargo.find(options.cargo) do
      {:ok, _cargo} -> sources(options, note)
      {:error, _message} -> {:error, "#{note} `cargo` was not found either. #{@instead}"}
    end
  end

  defp sources(options, note) do
    case Cargo.sources(options.native) do
      [] ->
        {:error,
         "The sources of Chatterbex's native libraries are not in #{options.native}. " <>
           "Fetch the package again, or set CHATTERBEX_NATIVE_DIR to a folder with built libraries."}

      sources ->
        {:ok, {:sources, sources}, note}
    end
  end

  ## Installing them

  defp install({:archive, archive}, options) do
    with {:error, reason} <- Precompiled.install(archive, options.output, options.precompiled) do
      {:error,
       "The prebuilt libraries of Chatterbex #{options.version} for #{options.target.name} could not be installed: " <>
         "#{reason}.\n\nCheck the network, the proxy (HTTPS_PROXY) and the mirror (CHATTERBEX_PRECOMPILED_URL), or " <>
         "put #{archive.name} into a folder and set RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH to it. #{@instead}"}
    end
  end

  defp install({:sources, _sources}, options) do
    with {:ok, cargo} <- Cargo.find(options.cargo),
         {:ok, built} <- Cargo.build(cargo, options.native) do
      File.mkdir_p!(options.output)
      Enum.find_value(built, :ok, &failure(&1, options.output))
    end
  end

  defp failure({name, built}, output) do
    with {:ok, content} <- File.read(built), :ok <- Precompiled.put_one(Path.join(output, name), content) do
      nil
    else
      {:error, posix} -> {:error, "Cannot put #{name} into #{output}: #{:file.format_error(posix)}"}
    end
  end
end
