defmodule Chatterbex.Setup.Profile do
  @moduledoc false
  # What can be installed: a name, its lock files, and what must import afterwards.
  #
  # The environment holds one or more profiles, always installed together: a lock that adds to another is
  # made under its constraint (`uv pip compile -c hibari.txt`), so that adding it changes nothing there.

  alias Chatterbex.Setup.Manifest

  @enforce_keys [:name, :title, :locks, :imports, :timeout]
  defstruct @enforce_keys ++ [:language, :torch_lock, :proof, :data]

  @typedoc """
  `locks` are its lock files. `torch_lock` is one more, for PyTorch, which may come from elsewhere; `proof` a script that
  tries the result on a device; `data` one that fetches what a language's package needs besides.
  """
  @type t :: %__MODULE__{
          name: String.t(),
          title: String.t(),
          locks: [Path.t()],
          imports: [String.t()],
          timeout: pos_integer,
          language: String.t() | nil,
          torch_lock: Path.t() | nil,
          proof: Path.t() | nil,
          data: Path.t() | nil
        }

  # `timeout` (milliseconds) is for the whole installation, over a slow network.
  @profiles [
    %{
      name: "hibari",
      title: "the built-in voice",
      locks: ["hibari.txt"],
      imports: ["numpy", "onnxruntime", "hibari"],
      timeout: :timer.minutes(45)
    },
    %{
      name: "torch",
      title: "PyTorch with the networks of the Chatterbox models",
      locks: ["chatterbox.txt"],
      torch_lock: "torch.txt",
      imports: ["torch", "torchaudio", "safetensors", "tokenizers", "soxr", "huggingface_hub"],
      proof: "proof.py",
      timeout: :timer.hours(2)
    },
    %{
      name: "language-ja",
      title: "what Japanese needs",
      language: "ja",
      locks: ["language-ja.txt"],
      imports: ["pykakasi"],
      timeout: :timer.minutes(15)
    },
    %{
      name: "language-zh",
      title: "what Chinese needs",
      language: "zh",
      locks: ["language-zh.txt"],
      imports: ["spacy_pkuseg"],
      data: "words_of_chinese.py",
      timeout: :timer.minutes(15)
    }
  ]

  @doc """
  All profiles of this version.
  """
  @spec all() :: [t]
  def all, do: Enum.map(@profiles, &struct!(__MODULE__, &1))

  @doc """
  Those of `profiles` to install: the first one, which everybody gets, PyTorch where it is wanted, those of
  `languages`, and what `manifest` has.
  """
  @spec wanted([t], boolean, [String.t()], Manifest.t() | nil) :: [t]
  def wanted([first | others], torch?, languages, manifest) do
    installed = if manifest, do: Map.keys(manifest["profiles"]), else: []

    [
      first
      | Enum.filter(others, fn profile ->
          profile.name in installed or profile.language in languages or (torch? and torch?(profile))
        end)
    ]
  end

  @doc """
  Whether it brings PyTorch.
  """
  @spec torch?(t) :: boolean
  def torch?(profile), do: profile.torch_lock != nil

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
  The checksum of the profile's lock files; `nil` without the files.
  """
  @spec lock_sha256(t) :: String.t() | nil
  def lock_sha256(%__MODULE__{} = profile) do
    locks = Enum.map(lock_paths(profile), &File.read/1)

    if Enum.all?(locks, &match?({:ok, _lock}, &1)) do
      locks = Enum.map(locks, fn {:ok, lock} -> lock end)
      :sha256 |> :crypto.hash(locks) |> Base.encode16(case: :lower)
    end
  end

  @doc """
  Where the profile's lock files are; with `torch: false` without PyTorch's.
  """
  @spec lock_paths(t, keyword) :: [Path.t()]
  def lock_paths(%__MODULE__{} = profile, options \\ []) do
    torch = if Keyword.get(options, :torch, true), do: List.wrap(profile.torch_lock), else: []
    Enum.map(profile.locks ++ torch, &lock_file/1)
  end

  @doc """
  The version of PyTorch that is locked, as `"2.6.0"`; `nil` where no profile brings it.
  """
  @spec torch_version([t]) :: String.t() | nil
  def torch_version(profiles) do
    with %{torch_lock: lock} <- Enum.find(profiles, &torch?/1),
         {:ok, text} <- File.read(lock_file(lock)),
         [_line, version] <- Regex.run(~r/^torch==([\w.]+)/m, text) do
      version
    else
      _none -> nil
    end
  end

  @doc """
  A package with its version, where that is known.

      iex> Chatterbex.Setup.Profile.named("numpy", %{"numpy" => "2.4.6"})
      "numpy 2.4.6"
  """
  @spec named(String.t(), %{optional(String.t()) => String.t() | nil}) :: String.t()
  def named(package, versions) do
    case versions[package] do
      nil -> package
      version -> "#{package} #{version}"
    end
  end

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

  # A test's own files have absolute paths.
  defp priv([_folder, "/" <> _rest = path]), do: path
  defp priv(parts), do: Application.app_dir(:chatterbex, Path.join(["priv", "python" | parts]))
end
