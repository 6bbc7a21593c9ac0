defmodule Chatterbex.Setup.Uv do
  @moduledoc false
  # uv, the installer: found on the machine, or put into an environment with pip.

  alias Chatterbex.JSON
  alias Chatterbex.Setup.{Command, Machine, Pip, Profile}

  @enforce_keys [:path, :version]
  defstruct [:path, :version]

  @type t :: %__MODULE__{path: Path.t(), version: String.t()}

  # Older ones lack `python list --output-format` or `UV_DEFAULT_INDEX`.
  @oldest {0, 6}

  @list_timeout :timer.minutes(1)
  @venv_timeout :timer.minutes(5)
  @bootstrap_timeout :timer.minutes(15)
  @download_timeout :timer.minutes(20)

  @doc """
  The first uv that runs and is new enough: on PATH, where its own installer puts it, in `folders`.
  """
  @spec find(Machine.t(), [Path.t()]) :: t | nil
  def find(%Machine{} = machine, folders) do
    (machine.path ++ machine.tools ++ folders)
    |> Enum.map(&Path.join(&1, "uv"))
    |> Enum.filter(&Machine.executable?/1)
    |> Enum.find_value(&usable/1)
  end

  defp usable(path) do
    with {:ok, output} <- Command.run(path, ["--version"], timeout: 15_000),
         [_all, major, minor, patch] <- Regex.run(~r/^uv (\d+)\.(\d+)\.(\d+)/m, output),
         true <- {String.to_integer(major), String.to_integer(minor)} >= @oldest do
      %__MODULE__{path: path, version: "#{major}.#{minor}.#{patch}"}
    else
      _missing_broken_or_old -> nil
    end
  end

  @doc """
  Pythons that uv manages or finds, lazily: first the one that it would use, then all that it knows.

  `version` is `"3.11"`, or `nil` for any that can be embedded. `nil` for uv has none.
  """
  @spec pythons(t | nil, String.t() | nil) :: Enumerable.t()
  def pythons(nil, _version), do: []

  def pythons(%__MODULE__{path: uv}, version) do
    # The list runs every Python on the machine, which takes seconds with pyenv. Usually the first one fits.
    Stream.flat_map([fn -> preferred(uv, version || ">=3.10,<3.15") end, fn -> installed(uv) end], & &1.())
  end

  defp preferred(uv, request) do
    arguments = ["python", "find", "--system", "--no-project", "--no-python-downloads", request]

    case Command.run(uv, arguments, timeout: @list_timeout, stderr: :discard) do
      {:ok, output} -> Command.last_lines(output, 1)
      {:error, _none} -> []
    end
  end

  defp installed(uv) do
    arguments = ["python", "list", "--only-installed", "--output-format", "json"]

    with {:ok, output} <- Command.run(uv, arguments, timeout: @list_timeout, stderr: :discard),
         {:ok, entries} when is_list(entries) <- JSON.decode(output) do
      entries
      |> Enum.filter(&listed?/1)
      |> Enum.map(& &1["path"])
      |> Enum.sort_by(&if(managed?(&1), do: 0, else: 1))
    else
      _no_list -> []
    end
  end

  # Only CPython of the right versions is worth running.
  defp listed?(%{
         "path" => path,
         "implementation" => "cpython",
         "version_parts" => %{"major" => major, "minor" => minor}
       })
       when is_binary(path),
       do: "#{major}.#{minor}" in Profile.pythons()

  defp listed?(_other), do: false

  defp managed?(path) do
    folder = System.get_env("UV_PYTHON_INSTALL_DIR")
    String.contains?(path, "/uv/python/") or (folder not in [nil, ""] and String.starts_with?(path, folder))
  end

  @doc """
  Whether the user lets uv download Pythons.
  """
  @spec may_download?() :: boolean
  def may_download?, do: System.get_env("UV_PYTHON_DOWNLOADS") not in ["never", "manual"]

  @doc """
  Makes uv download a Python.
  """
  @spec download_python(t, String.t()) :: :ok | {:error, Command.failure()}
  def download_python(%__MODULE__{path: uv}, version) do
    with {:ok, _output} <- Command.run(uv, ["python", "install", version], timeout: @download_timeout),
         do: :ok
  end

  @doc """
  Creates an environment in a folder that may already exist.
  """
  @spec venv(t, Path.t(), Path.t()) :: :ok | {:error, Command.failure()}
  def venv(%__MODULE__{path: uv}, python, folder) do
    arguments = ["venv", "--quiet", "--allow-existing", "--no-project", "--python", python, folder]
    with {:ok, _output} <- Command.run(uv, arguments, timeout: @venv_timeout), do: :ok
  end

  @doc """
  Puts uv into an environment, with that environment's own pip. `python` makes the environment, or gives it
  its pip if it has none.
  """
  @spec bootstrap(Path.t(), Path.t()) :: {:ok, t} | {:error, {String.t(), Command.failure()}}
  def bootstrap(python, folder) do
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]

    pip =
      pip ++ ["--no-deps", "--only-binary", ":all:", "--force-reinstall", "-r", Profile.lock_file("uv.txt")]

    program = Path.join(folder, "bin/python")

    with {_tool, {:ok, _output}} <-
           {"venv", Command.run(python, ["-m", "venv", folder], timeout: @venv_timeout)},
         {_tool, {:ok, output}} <- {"pip", Command.run(program, pip, timeout: @bootstrap_timeout)} do
      case usable(Path.join(folder, "bin/uv")) do
        nil -> {:error, {"uv", %{why: {:exit, 1}, output: output <> "\nuv was installed and does not run"}}}
        uv -> {:ok, uv}
      end
    else
      {tool, {:error, failure}} -> {:error, {tool, failure}}
    end
  end

  @doc """
  Installs the packages of the lock files that are not installed yet.

  Options: `:timeout`, `:pip_files` (pip's configuration files, whose settings uv is told), `:on_line` (gets each line of
  uv's output as it comes), `:offline`, and `:reinstall`, names of packages to install whatever is there.
  """
  @spec install(t, Path.t(), [Path.t()], keyword) :: {:ok, String.t()} | {:error, Command.failure()}
  def install(uv, program, locks, options) do
    again = Enum.flat_map(Keyword.get(options, :reinstall, []), &["--reinstall-package", &1])
    arguments = ["--require-hashes", "--no-deps"] ++ Enum.flat_map(locks, &["-r", &1]) ++ again
    # Another build than the locked one has other hashes.
    pip_install(uv, program, arguments, %{"UV_TORCH_BACKEND" => nil}, options)
  end

  @doc """
  Installs from the index, without a lock. `arguments` are requirements and flags.

  Options: those of `install/4`.
  """
  @spec install_unlocked(t, Path.t(), [String.t()], keyword) ::
          {:ok, String.t()} | {:error, Command.failure()}
  def install_unlocked(uv, program, arguments, options),
    do: pip_install(uv, program, arguments, %{}, options)

  @doc """
  Removes packages.
  """
  @spec uninstall(t, Path.t(), [String.t()]) :: {:ok, String.t()} | {:error, Command.failure()}
  def uninstall(%__MODULE__{path: uv}, program, packages) do
    Command.run(uv, ["pip", "uninstall", "--python", program | packages],
      timeout: @venv_timeout,
      cd: Path.dirname(program)
    )
  end

  defp pip_install(%__MODULE__{path: uv}, program, arguments, environment, options) do
    {settings, flags} = settings(Keyword.get(options, :pip_files, []))
    offline = if options[:offline], do: ["--offline"], else: []

    Command.run(
      uv,
      ["pip", "install", "--python", program, "--only-binary", ":all:"] ++ arguments ++ flags ++ offline,
      timeout: Keyword.fetch!(options, :timeout),
      on_line: Keyword.get(options, :on_line, fn _line -> :ok end),
      # A uv.toml or pyproject.toml in the current folder belongs to another project.
      cd: Path.dirname(program),
      env: Map.merge(settings, environment)
    )
  end

  # Users that configure uv do not want pip's settings for it.
  defp settings(pip_files) do
    environment = System.get_env()
    config = environment["XDG_CONFIG_HOME"] || Path.join(System.user_home() || "/", ".config")
    files = [Path.join(config, "uv/uv.toml"), "/etc/uv/uv.toml"]

    if environment["UV_CONFIG_FILE"] not in [nil, ""] or Enum.any?(files, &File.exists?/1),
      do: {%{}, []},
      else: pip_files |> Pip.settings(environment) |> Pip.for_uv(environment)
  end
end
