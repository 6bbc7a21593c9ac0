defmodule Chatterbex.Python do
  @moduledoc """
  Finds the Python environment that `mix chatterbex.setup` creates.

  It is the subfolder `venv` of a folder called the *home*. The home is the first of these that is set:

    1. the option `:home` of a function or a server (`mix chatterbex.setup --path`)
    2. the environment variable `CHATTERBEX_HOME`
    3. `config :chatterbex, home: "/srv/chatterbex"`
    4. the user's cache folder: `$XDG_CACHE_HOME/chatterbex` if that is set, otherwise `~/.cache/chatterbex`
       on Linux and `~/Library/Caches/chatterbex` on macOS

  The file `venv/chatterbex.json` lists what is installed, and names the shared library of Python that the BEAM opens.
  """

  alias Chatterbex.{Configuration, Error}
  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, PackageProfile, TorchPlan}

  # An environment that is ready: the venv's interpreter, the shared library of its Python, that Python's version, the home,
  # and the manifest as it was written.
  @typedoc false
  @type t :: %{
          program: Path.t(),
          libpython: Path.t(),
          version: String.t(),
          home: Path.t(),
          manifest: map
        }

  @doc """
  Returns the folder of the Python environment as an absolute path. It need not exist.

  Options: `:home`, a path that overrides everything else.

  ## Examples

      iex> Chatterbex.Python.home(home: "/srv/speech")
      "/srv/speech"
  """
  @spec home(keyword) :: Path.t()
  def home(options \\ []) do
    [options[:home], System.get_env("CHATTERBEX_HOME"), Configuration.get(:home)]
    |> Enum.find(&(&1 not in [nil, ""]))
    |> Kernel.||(default_home())
    |> Path.expand()
  end

  # Finds the environment and checks that it is complete, without starting Python or any other program.
  #
  # Options: `:home`, as for `home/1`; `:profiles`, the names of what must be installed: `"hibari"`, the built-in voice,
  # `"torch"`, what the Chatterbox models need (default `["hibari"]`).
  #
  # The error has the reason `:not_set_up`, its message ends with the command to run, and its details hold `:home` and
  # `:command`.
  @doc false
  @spec find(keyword) :: {:ok, t} | {:error, Error.t()}
  def find(options \\ []) do
    home = home(options)
    venv = venv(home)
    profiles = Keyword.get(options, :profiles, ["hibari"])

    with {:ok, manifest} <- EnvironmentManifest.read(venv),
         program = program(venv),
         :ok <-
           there(HostMachine.executable?(program), {:python_removed, manifest["python"]["base_executable"]}),
         :ok <- there(File.exists?(manifest["libpython"]), {:libpython_removed, manifest["libpython"]}),
         :ok <- current(profiles, manifest) do
      {:ok,
       %{
         program: program,
         libpython: manifest["libpython"],
         version: manifest["python"]["version"],
         home: home,
         manifest: manifest
       }}
    else
      {:error, why} -> {:error, not_set_up(why, home)}
    end
  end

  @doc false
  @spec venv(Path.t()) :: Path.t()
  def venv(home), do: Path.join(home, "venv")

  @doc false
  @spec program(Path.t()) :: Path.t()
  def program(venv), do: Path.join([venv, "bin", "python"])

  # The command that creates or repairs the environment in `home`.
  @doc false
  @spec setup_command(Path.t(), keyword) :: String.t()
  def setup_command(home, options \\ []) do
    options = if home == home(), do: options, else: options ++ [home: home]

    if System.get_env("RELEASE_ROOT") do
      ~s[#{release()} eval 'Chatterbex.Setup.run!(#{options |> inspect() |> String.slice(1..-2//1)})']
    else
      Enum.join(["mix chatterbex.setup" | Enum.map(options, &flag/1)], " ")
    end
  end

  defp flag({:device, device}), do: "--#{device}"
  defp flag({:force, true}), do: "--force"
  defp flag({name, values}) when is_list(values), do: "--#{name} #{Enum.join(values, ",")}"
  defp flag({:home, home}), do: "--path #{quoted(home)}"
  defp flag({name, value}), do: "--#{name} #{value}"

  defp release do
    name = System.get_env("RELEASE_NAME", "my_app")
    "RELEASE_ROOT" |> System.get_env("") |> Path.join("bin/#{name}") |> quoted()
  end

  defp quoted(path) do
    if path =~ ~r/\A[\w.\/@%+=:,-]+\z/u, do: path, else: "'#{String.replace(path, "'", "'\\''")}'"
  end

  # macOS has no XDG folders of its own accord, but who sets the variable means it.
  defp default_home do
    case System.get_env("XDG_CACHE_HOME", "") do
      "/" <> _rest = folder -> Path.join(folder, "chatterbex")
      _unset_or_relative -> user_cache()
    end
  end

  # Not :filename.basedir/2, which takes a relative XDG_CACHE_HOME and fails without HOME.
  defp user_cache do
    cache = if :os.type() == {:unix, :darwin}, do: "Library/Caches", else: ".cache"
    Path.join([System.user_home() || "/", cache, "chatterbex"])
  end

  defp there(true, _problem), do: :ok
  defp there(false, problem), do: {:error, problem}

  defp current(names, manifest) do
    missing = Enum.find(names, &(not is_map_key(manifest["profiles"], &1)))

    outdated =
      Enum.find(PackageProfile.all(), &(&1.name in names and not PackageProfile.current?(&1, manifest)))

    cond do
      missing -> {:error, {:profile_missing, missing}}
      outdated -> {:error, {:outdated, manifest["chatterbex"]}}
      true -> :ok
    end
  end

  defp not_set_up(why, home) do
    command = setup_command(home, options(why))

    Error.new(:not_set_up, "Chatterbex is not set up: #{describe(why, home)}. Run: #{command}", %{
      home: home,
      command: command
    })
  end

  defp options({:profile_missing, "torch"}), do: [device: TorchPlan.fitting_device(HostMachine.this())]
  defp options(_why), do: []

  defp describe(:missing, home) do
    if File.exists?(venv(home)),
      do: "the setup of #{venv(home)} has not come to its end",
      else: "there is no Python environment in #{home}"
  end

  defp describe(:older, home), do: "the Python environment in #{home} was made by an older version"
  defp describe(:newer, home), do: "the Python environment in #{home} was made by a newer version"

  defp describe({:invalid, why}, home), do: "#{EnvironmentManifest.path(venv(home))} cannot be read (#{why})"

  defp describe({:python_removed, base}, home),
    do: "the Python that #{venv(home)} was made with (#{base}) is no longer there"

  defp describe({:libpython_removed, libpython}, _home),
    do: "the shared library of Python, #{libpython}, is no longer there"

  defp describe({:profile_missing, "torch"}, home),
    do: "PyTorch, which the Chatterbox models need, is not in #{venv(home)}"

  defp describe({:profile_missing, name}, home), do: "#{venv(home)} has no #{name} in it"

  defp describe({:outdated, version}, home),
    do: "the packages in #{venv(home)} are those of version #{version}, which this version has changed"
end
