defmodule Chatterbex.Setup.Uv do
  @moduledoc false
  # uv, which finds and downloads Pythons, makes environments and installs packages. If the machine has none, pip fetches
  # it from the package index, checked by its hash, into the home.

  alias Chatterbex.{Files.Replacement, JSON, Python}
  alias Chatterbex.Setup.{HostMachine, PackageProfile, PipSettings, SetupFailure, Subprocess}

  @enforce_keys [:path, :version]
  defstruct [:path, :version]

  @type t :: %__MODULE__{path: Path.t(), version: String.t()}

  # Older ones lack `python list --output-format` or `UV_DEFAULT_INDEX`.
  @oldest {0, 6}

  @timeout :timer.minutes(15)

  @doc "The first uv of a machine that runs and is new enough, or the one that an earlier setup put into the home."
  @spec find(HostMachine.t(), Path.t()) :: t | nil
  def find(machine, home) do
    # Earlier versions put it into the environment, which `force: true` replaces.
    earlier = Path.join(Python.venv(home), "bin/uv")

    case Enum.find_value(HostMachine.executables(machine, ["uv"]) ++ [in_home(home), earlier], &usable/1) do
      %{path: ^earlier} = uv -> keep(uv, in_home(home))
      found -> found
    end
  end

  defp in_home(home), do: Path.join(home, "bin/uv")

  defp keep(uv, path) do
    with :ok <- File.mkdir_p(Path.dirname(path)), :ok <- File.cp(uv.path, path), do: usable(path)
  end

  defp usable(path) do
    with true <- HostMachine.executable?(path),
         {:ok, output} <- Subprocess.run(path, ["--version"], timeout: 15_000),
         [_all, major, minor, patch] <- Regex.run(~r/^uv (\d+)\.(\d+)\.(\d+)/m, output),
         true <- {String.to_integer(major), String.to_integer(minor)} >= @oldest do
      %__MODULE__{path: path, version: "#{major}.#{minor}.#{patch}"}
    else
      _missing_broken_or_old -> nil
    end
  end

  @doc "Fetches uv into the home, with the pip of a Python that can make environments."
  @spec fetch(Path.t(), Path.t()) :: {:ok, t} | {:error, Subprocess.failure()}
  def fetch(python, home) do
    folder = Replacement.unique(in_home(home))
    program = Python.program(folder)

    pip =
      ~w(-m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r) ++
        [PackageProfile.lock_file("uv.txt")]

    try do
      with {:ok, _output} <- Subprocess.run(python, ["-m", "venv", folder], timeout: @timeout, tool: "venv"),
           {:ok, output} <- Subprocess.run(program, pip, timeout: @timeout, tool: "pip") do
        _moved = File.rename(Path.join(folder, "bin/uv"), in_home(home))
        uv = usable(in_home(home))
        if uv, do: {:ok, uv}, else: {:error, %{tool: "uv", why: :no_answer, output: output}}
      end
    after
      File.rm_rf(folder)
    end
  end

  @doc """
  The Pythons that uv manages, or finds in `folders`, as maps with `"path"` and `"version"`. Nothing if it does not
  answer: `uv python install` then says why.
  """
  @spec pythons(t, [Path.t()]) :: [map]
  def pythons(%__MODULE__{path: uv}, folders) do
    options = [stderr: :discard, env: %{"PATH" => Enum.join(folders, ":")}]

    with {:ok, output} <- Subprocess.run(uv, ~w(python list --only-installed --output-format json), options),
         {:ok, entries} when is_list(entries) <- JSON.decode(output) do
      entries
      |> Enum.filter(&match?(%{"path" => <<_::binary>>, "version" => <<_::binary>>}, &1))
      |> Enum.uniq_by(&{file(&1["path"]), &1["version"]})
    else
      _no_list -> []
    end
  end

  # A file with several names is asked only once. pyenv's shims are one file, each for another version.
  defp file(path), do: with({:ok, stat} <- File.stat(path), do: {stat.major_device, stat.inode})

  @doc "Downloads a Python."
  @spec download_python(t, String.t()) :: {:ok, String.t()} | {:error, Subprocess.failure()}
  def download_python(uv, version),
    do: Subprocess.run(uv.path, ["python", "install", version], timeout: @timeout)

  @doc "Creates an environment in a folder that may already exist."
  @spec venv(t, Path.t(), Path.t()) :: {:ok, String.t()} | {:error, Subprocess.failure()}
  def venv(uv, python, folder) do
    arguments = ["venv", "--quiet", "--allow-existing", "--no-project", "--python", python, folder]
    Subprocess.run(uv.path, arguments, timeout: @timeout)
  end

  @doc """
  Installs the packages of the lock files that are not installed yet.

  Options: `:timeout`, `:pip_files` (pip's configuration files, whose settings uv is told), `:on_output` (see
  `Subprocess.run/3`), `:exact` (removes all other packages), and `:reinstall`, names of packages to install whatever is
  there.
  """
  @spec install(t, Path.t(), [Path.t()], keyword) :: {:ok, String.t()} | {:error, Subprocess.failure()}
  def install(uv, program, locks, options) do
    again = Enum.flat_map(Keyword.get(options, :reinstall, []), &["--reinstall-package", &1])

    {command, locks} =
      if options[:exact],
        do: {"sync", locks},
        else: {"install", ["--no-deps" | Enum.flat_map(locks, &["-r", &1])]}

    # Another build than the locked one has other hashes.
    environment = %{"UV_TORCH_BACKEND" => nil}
    pip(uv, command, program, ["--require-hashes" | again] ++ locks, environment, options)
  end

  @doc "Installs from the index, without a lock. `arguments` are requirements and flags. Options: those of `install/4`."
  @spec install_unlocked(t, Path.t(), [String.t()], keyword) ::
          {:ok, String.t()} | {:error, Subprocess.failure()}
  def install_unlocked(uv, program, arguments, options),
    do: pip(uv, "install", program, arguments, %{}, options)

  @doc """
  What an output of `install/4` says so far: bytes of the downloads that it names, bytes of those that are complete, and
  how many seconds they all took, or `nil` before the end. uv names files of more than a megabyte.
  """
  @spec downloads(String.t()) :: %{total: number, complete: number, seconds: float | nil}
  def downloads(output) do
    sizes =
      for [_line, name | size] <- Regex.scan(~r/^ *Downloading (\S+) \((.+)\)/m, output),
          do: {name, sum(size)}

    complete =
      for [_line, name] <- Regex.scan(~r/^ *Downloaded (\S+)/m, output), {^name, size} <- sizes, do: size

    total = sizes |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    seconds = for [_line | time] <- Regex.scan(~r/^Prepared \d+ packages? in (.+)$/m, output), do: sum(time)
    %{total: total, complete: Enum.sum(complete), seconds: if(seconds != [], do: Enum.sum(seconds))}
  end

  # As uv writes sizes and times: 1.5GiB, 1m 02s.
  @units %{"K" => 1024, "M" => 1024 ** 2, "G" => 1024 ** 3, "ms" => 0.001, "s" => 1, "m" => 60, "h" => 3600}

  defp sum([text]) do
    for [_part, number, unit] <- Regex.scan(~r/([\d.]+)(ms|[KMGsmh])/, text), reduce: 0.0 do
      sum -> sum + elem(Float.parse(number), 0) * Map.fetch!(@units, unit)
    end
  end

  defp pip(%__MODULE__{path: uv}, command, program, arguments, environment, options) do
    {settings, flags} = settings(Keyword.get(options, :pip_files, []))
    command = ["pip", command, "--python", program, "--only-binary", ":all:"] ++ flags ++ arguments

    # A uv.toml or pyproject.toml in the current folder belongs to another project.
    options =
      Keyword.take(options, [:timeout, :on_output]) ++
        [cd: Path.dirname(program), env: Map.merge(settings, environment)]

    # Cached packages need no network, but uv asks the index first.
    with {:error, failure} <- Subprocess.run(uv, command, options) do
      again = if SetupFailure.network?(failure), do: Subprocess.run(uv, command ++ ["--offline"], options)
      if match?({:ok, _output}, again), do: again, else: {:error, failure}
    end
  end

  # Users that configure uv do not want pip's settings for it.
  defp settings(pip_files) do
    environment = System.get_env()
    config = environment["XDG_CONFIG_HOME"] || Path.join(System.user_home() || "/", ".config")
    files = [Path.join(config, "uv/uv.toml"), "/etc/uv/uv.toml"]

    if environment["UV_CONFIG_FILE"] not in [nil, ""] or Enum.any?(files, &File.exists?/1),
      do: {%{}, []},
      else: pip_files |> PipSettings.read(environment) |> PipSettings.for_uv(environment)
  end
end
