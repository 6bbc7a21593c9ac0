defmodule Chatterbex.Setup.Profile do
  @moduledoc false
  # What can be installed: a name, its lock file, and what must import afterwards.
  #
  # The environment holds one or more profiles, always installed together: a lock that adds to another is
  # made under its constraint (`uv pip compile -c hibari.txt`), so that adding it changes nothing there.

  alias Chatterbex.Setup.Manifest

  @enforce_keys [:name, :title, :lock, :imports, :timeout]
  defstruct [:name, :title, :lock, :imports, :timeout]

  @type t :: %__MODULE__{
          name: String.t(),
          title: String.t(),
          lock: Path.t(),
          imports: [String.t()],
          timeout: pos_integer
        }

  # `timeout` (milliseconds) is for the whole installation, over a slow network.
  @profiles [
    %{
      name: "hibari",
      title: "the built-in voice",
      lock: "hibari.txt",
      imports: ["numpy", "onnxruntime", "hibari"],
      timeout: :timer.minutes(45)
    },
    %{
      name: "torch",
      title: "PyTorch and the networks of the Chatterbox models",
      lock: "torch.txt",
      imports: ["torch", "torchaudio", "safetensors", "tokenizers", "soxr", "huggingface_hub"],
      timeout: :timer.hours(2)
    }
  ]

  @doc """
  All profiles of this version.
  """
  @spec all() :: [t]
  def all, do: Enum.map(@profiles, &struct!(__MODULE__, &1))

  @doc """
  Those of `profiles` to install for a device asked for (`nil` without a flag), beside those that `manifest`
  has.

  The first one is what everybody gets.
  """
  @spec wanted([t], atom, Manifest.t() | nil) :: [t]
  def wanted([first | others], device, manifest) do
    installed = if manifest, do: Map.keys(manifest["profiles"]), else: []
    asked = if device, do: ["torch"], else: []
    [first | Enum.filter(others, &(&1.name in installed or &1.name in asked))]
  end

  @doc """
  Whether `manifest` says that this profile is installed from the lock file of today.

  A lock file that is not there (a release may leave it out) cannot contradict the manifest.
  """
  @spec current?(t, Manifest.t()) :: boolean
  def current?(%__MODULE__{} = profile, manifest) do
    case manifest["profiles"][profile.name] do
      %{"lock_sha256" => installed} -> lock_sha256(profile) in [installed, nil]
      _not_installed -> false
    end
  end

  @doc """
  The checksum of the profile's lock file; `nil` without the file.
  """
  @spec lock_sha256(t) :: String.t() | nil
  def lock_sha256(%__MODULE__{} = profile) do
    case File.read(lock_path(profile)) do
      {:ok, lock} -> :sha256 |> :crypto.hash(lock) |> Base.encode16(case: :lower)
      {:error, _reason} -> nil
    end
  end

  @doc """
  Where the profile's lock file is.
  """
  @spec lock_path(t) :: Path.t()
  def lock_path(%__MODULE__{lock: lock}), do: lock_file(lock)

  @doc """
  Where a lock file of this library is.
  """
  @spec lock_file(String.t()) :: Path.t()
  def lock_file(name), do: priv(["locks", name])

  @doc """
  Where a script of the setup is.
  """
  @spec script(String.t()) :: Path.t()
  def script(name), do: priv(["provision", name])

  # A test's own lock file has an absolute path.
  defp priv([_folder, "/" <> _rest = path]), do: path
  defp priv(parts), do: Application.app_dir(:chatterbex, Path.join(["priv", "python" | parts]))
end
