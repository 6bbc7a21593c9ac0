defmodule Chatterbex.Native.Cargo do
  @moduledoc false
  # Compiles the native libraries from their sources.

  alias Chatterbex.Native.{Cargo, Library}

  @last_lines 30
  @not_passed_on ~w(RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET)

  @install "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

  @doc """
  Where Cargo may be. A shell that was open while Rust was installed does not have it in its PATH yet.
  """
  @spec candidates() :: [Path.t() | nil]
  def candidates do
    home = System.get_env("CARGO_HOME") || Path.join(System.user_home() || "/", ".cargo")
    [System.find_executable("cargo"), Path.join([home, "bin", "cargo"])]
  end

  @doc """
  The first candidate that is there. The error is a message for the user.
  """
  @spec find([Path.t() | nil]) :: {:ok, Path.t()} | {:error, String.t()}
  def find(candidates) do
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

  @doc """
  The files that decide what Cargo builds.
  """
  @spec sources(Path.t()) :: [Path.t()]
  def sources(native) do
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

  @doc """
  Compiles the libraries. Returns the path of each built file by the name that it has in priv/native.
  """
  @spec build(Path.t(), Path.t()) :: {:ok, [{String.t(), Path.t()}]} | {:error, String.t()}
  def build(cargo, native) do
    with :ok <- check_rust(cargo, native), :ok <- compile(cargo, native) do
      {:ok,
       for(name <- Library.files(), do: {name, Path.join([target(native), "release", built_name(name)])})}
    end
  end

  @doc """
  The folder of what Cargo builds.
  """
  @spec target(Path.t()) :: Path.t()
  def target(native), do: Path.join(native, "target")

  # Checked first, because the error messages of an old Cargo do not help.
  defp check_rust(cargo, native) do
    with {output, 0} <- run(cargo, ["--version"], native),
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

  defp compile(cargo, native) do
    Mix.shell().info("Compiling the native libraries (Rust)")
    environment = [{"CARGO_TARGET_DIR", target(native)} | terminal()]

    case run(cargo, ["build", "--release", "--locked"], native, environment, &show/1) do
      {_, 0} ->
        :ok

      {output, status} ->
        {:error,
         "Cargo could not compile Chatterbex's native libraries (exit status #{status}). " <>
           "Its last lines:\n\n#{last_lines(output)}\n"}
    end
  end

  defp run(cargo, args, folder, environment \\ [], show \\ fn _ -> :ok end) do
    unset = for name <- @not_passed_on, do: {name, nil}

    # rustc is next to Cargo, and may be found only there.
    path = Path.dirname(cargo) <> ":" <> (System.get_env("PATH") || "")

    System.cmd(cargo, args,
      cd: folder,
      env: unset ++ [{"PATH", path} | environment],
      stderr_to_stdout: true,
      into: %Cargo.Output{show: show}
    )
  end

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

  # The VM wants ".so" on macOS too.
  defp built_name(library) do
    crate = "chatterbex_" <> Path.basename(library, ".so")

    case :os.type() do
      {:unix, :darwin} -> "lib#{crate}.dylib"
      _ -> "lib#{crate}.so"
    end
  end
end
