defmodule Chatterbex.Setup.Machine do
  @moduledoc false
  # The facts about this machine, as a value: a test gives its own.

  alias Chatterbex.Setup.{Nvidia, Profile}

  defstruct os: :linux,
            debian: false,
            architecture: "x86_64",
            nvidia: nil,
            path: [],
            folders: [],
            tools: [],
            pyenv: nil,
            pip_files: []

  @type t :: %__MODULE__{
          os: :linux | :macos | :unix | :windows,
          debian: boolean,
          architecture: String.t(),
          nvidia: Nvidia.t() | nil,
          path: [Path.t()],
          folders: [Path.t()],
          tools: [Path.t()],
          pyenv: Path.t() | nil,
          pip_files: [Path.t()]
        }

  @homebrew ~w(/opt/homebrew /usr/local)

  @doc """
  This machine. `path` are PATH's folders, `folders` those that are searched after them, `tools` those where
  uv's own installer puts it, `pyenv` the folder of pyenv's versions, `pip_files` pip's configuration files, the
  weakest first, `nvidia` NVIDIA's driver and cards, if there is a driver.
  """
  @spec this() :: t
  def this do
    os = os()

    %__MODULE__{
      os: os,
      debian: os == :linux and File.exists?("/etc/debian_version"),
      architecture: architecture(),
      nvidia: Nvidia.this(),
      path: "PATH" |> System.get_env("") |> String.split(":") |> Enum.filter(&(Path.type(&1) == :absolute)),
      folders: folders(os),
      tools: under_home([".local/bin", ".cargo/bin"]),
      pyenv: pyenv(),
      pip_files: pip_files()
    }
  end

  @doc """
  The best device of a machine, as far as known without PyTorch.
  """
  @spec fitting_device(t) :: :mps | :cuda | :cpu
  def fitting_device(%__MODULE__{os: :macos, architecture: "aarch64"}), do: :mps

  def fitting_device(%__MODULE__{os: os, nvidia: %Nvidia{} = nvidia, architecture: architecture})
      when os != :macos do
    if match?({:ok, _build, _why}, Nvidia.build(nvidia, architecture)), do: :cuda, else: :cpu
  end

  def fitting_device(%__MODULE__{}), do: :cpu

  @doc """
  The first executable file called `name` in `folders`, or `nil`.
  """
  @spec executable(String.t(), [Path.t()]) :: Path.t() | nil
  def executable(name, folders) do
    folders |> Enum.map(&Path.join(&1, name)) |> Enum.find(&executable?/1)
  end

  @doc """
  Whether `path` is, or links to, a file that may be run.
  """
  @spec executable?(Path.t()) :: boolean
  def executable?(path) do
    case File.stat(path) do
      {:ok, %File.Stat{type: :regular, mode: mode}} -> Bitwise.band(mode, 0o111) != 0
      _no_file -> false
    end
  end

  defp os do
    case :os.type() do
      {:unix, :linux} -> :linux
      {:unix, :darwin} -> :macos
      {:unix, _other} -> :unix
      {_windows, _name} -> :windows
    end
  end

  # Of the VM, not of the machine: under Rosetta an Intel VM needs an Intel Python.
  defp architecture do
    :erlang.system_info(:system_architecture) |> to_string() |> String.split("-") |> hd() |> normal()
  end

  @doc """
  Normalises the name of a processor.
  """
  @spec normal(String.t()) :: String.t()
  def normal("arm64"), do: "aarch64"
  def normal("amd64"), do: "x86_64"
  def normal(name), do: String.downcase(name)

  defp folders(:macos) do
    framework = "/Library/Frameworks/Python.framework/Versions"

    for(prefix <- @homebrew, version <- Profile.pythons(), do: "#{prefix}/opt/python@#{version}/bin") ++
      for(prefix <- @homebrew, do: "#{prefix}/bin") ++
      for(version <- Profile.pythons(), do: "#{framework}/#{version}/bin") ++ ["/usr/bin"]
  end

  defp folders(_other), do: ["/usr/local/bin", "/usr/bin"]

  defp pyenv do
    root = System.get_env("PYENV_ROOT") || List.first(under_home([".pyenv"]))
    root && Path.join(root, "versions")
  end

  defp pip_files do
    config = System.get_env("XDG_CONFIG_HOME") || List.first(under_home([".config"]))

    ["/etc/xdg/pip/pip.conf", "/Library/Application Support/pip/pip.conf", "/etc/pip.conf"] ++
      under_home([".pip/pip.conf"]) ++
      if(config, do: [Path.join(config, "pip/pip.conf")], else: []) ++
      under_home(["Library/Application Support/pip/pip.conf"]) ++
      Enum.reject([System.get_env("PIP_CONFIG_FILE", "")], &(&1 == ""))
  end

  defp under_home(names) do
    case System.user_home() do
      nil -> []
      home -> Enum.map(names, &Path.join(home, &1))
    end
  end
end
