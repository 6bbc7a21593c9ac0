defmodule Chatterbex.Setup.HostMachine do
  @moduledoc false
  # The facts about this machine, as a value: a test gives its own.

  alias Chatterbex.Setup.NvidiaDriver

  # `path` are PATH's folders, `folders` those that are searched after them, `pyenv` the folders of pyenv's Pythons,
  # `pip_files` pip's configuration files, the weakest first, `nvidia` NVIDIA's driver and cards if there is a driver.
  defstruct os: :linux,
            debian: false,
            architecture: "x86_64",
            nvidia: nil,
            path: [],
            folders: [],
            pyenv: [],
            pip_files: []

  @type t :: %__MODULE__{os: :linux | :macos | :unix | :windows, nvidia: NvidiaDriver.t() | nil}

  @spec this() :: t
  def this do
    os = os()
    home = System.user_home() || "/"

    %__MODULE__{
      os: os,
      debian: os == :linux and File.exists?("/etc/debian_version"),
      architecture: architecture(),
      nvidia: NvidiaDriver.this(),
      path: "PATH" |> System.get_env("") |> String.split(":") |> Enum.filter(&(Path.type(&1) == :absolute)),
      # uv's own installer uses the last two.
      folders: ~w(/opt/homebrew/bin /usr/local/bin /usr/bin #{home}/.local/bin #{home}/.cargo/bin),
      pyenv: Path.wildcard(System.get_env("PYENV_ROOT", "#{home}/.pyenv") <> "/versions/3.*/bin"),
      pip_files: pip_files(home)
    }
  end

  @doc "The executable files with these names, folder by folder."
  @spec executables(t, [String.t()]) :: [Path.t()]
  def executables(%__MODULE__{} = machine, names) do
    for folder <- machine.path ++ machine.folders,
        path <- Enum.map(names, &Path.join(folder, &1)),
        executable?(path),
        do: path
  end

  @doc "Whether `path` is, or links to, a file that may be run."
  @spec executable?(Path.t()) :: boolean
  def executable?(path) do
    case File.stat(path) do
      {:ok, %File.Stat{type: :regular, mode: mode}} -> Bitwise.band(mode, 0o111) != 0
      _no_file -> false
    end
  end

  @doc "Normalises the name of a processor."
  @spec normal(String.t()) :: String.t()
  def normal("arm64"), do: "aarch64"
  def normal("amd64"), do: "x86_64"
  def normal(name), do: String.downcase(name)

  defp os do
    case :os.type() do
      {:unix, name} -> Map.get(%{linux: :linux, darwin: :macos}, name, :unix)
      {:win32, _name} -> :windows
    end
  end

  # Of the VM, not of the machine: under Rosetta an Intel VM needs an Intel Python.
  defp architecture do
    :erlang.system_info(:system_architecture) |> to_string() |> String.split("-") |> hd() |> normal()
  end

  defp pip_files(home) do
    config = System.get_env("XDG_CONFIG_HOME", "#{home}/.config")

    ["/etc/xdg/pip/pip.conf", "/Library/Application Support/pip/pip.conf", "/etc/pip.conf"] ++
      ["#{home}/.pip/pip.conf", "#{config}/pip/pip.conf", "#{home}/Library/Application Support/pip/pip.conf"] ++
      Enum.reject([System.get_env("PIP_CONFIG_FILE", "")], &(&1 == ""))
  end
end
