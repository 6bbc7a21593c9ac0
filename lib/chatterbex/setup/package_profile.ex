defmodule Chatterbex.Setup.PackageProfile do
  @moduledoc false
  # What can be installed: a name, its lock files, and what must import afterwards.
  #
  # The environment holds one or more profiles, always installed together: a lock that adds to another is
  # made under its constraint (`uv pip compile -c hibari.txt`), so that adding it changes nothing there.

  alias Chatterbex.Setup.EnvironmentManifest

  # `torch` are further locks, one for each locked build of PyTorch: see `TorchPlan`. `proof` is a script that tries the
  # result on a device; `data` one that fetches what a language's package needs besides.
  @enforce_keys [:name, :title, :locks, :imports]
  defstruct @enforce_keys ++ [:language, :proof, :data, torch: %{}]

  @type t :: %__MODULE__{name: String.t(), title: String.t(), locks: [Path.t()], imports: [String.t()]}

  @profiles [
    %{
      name: "hibari",
      title: "the built-in voice",
      locks: ["hibari.txt"],
      imports: ["numpy", "onnxruntime", "hibari"]
    },
    %{
      name: "torch",
      title: "PyTorch with the networks of the Chatterbox models",
      locks: ["chatterbox.txt"],
      torch: %{locked: "torch.txt", cuda12: "torch-cuda12.txt"},
      imports: ["torch", "safetensors", "tokenizers", "soxr", "huggingface_hub"],
      proof: "proof.py"
    },
    %{
      name: "language-ja",
      title: "what Japanese needs",
      language: "ja",
      locks: ["language-ja.txt"],
      imports: ["pykakasi"]
    },
    %{
      name: "language-zh",
      title: "what Chinese needs",
      language: "zh",
      locks: ["language-zh.txt"],
      imports: ["spacy_pkuseg"],
      data: "words_of_chinese.py"
    }
  ]

  @doc """
  The versions of Python that the locks support, in order of preference: all packages have had wheels for 3.12 for years.

      iex> Chatterbex.Setup.PackageProfile.pythons()
      ["3.12", "3.13", "3.11", "3.14", "3.10"]
  """
  @spec pythons() :: [String.t()]
  def pythons, do: ~w(3.12 3.13 3.11 3.14 3.10)

  @doc "All profiles of this version."
  @spec all() :: [t]
  def all, do: Enum.map(@profiles, &struct!(__MODULE__, &1))

  @doc "Those to install: the first, which everybody gets, PyTorch if wanted, those of languages, and what `manifest` has."
  @spec wanted([t], boolean, [String.t()], EnvironmentManifest.t() | nil) :: [t]
  def wanted([first | others], torch?, languages, manifest) do
    wanted = fn profile ->
      is_map_key(manifest["profiles"] || %{}, profile.name) or profile.language in languages or
        (torch? and torch?(profile))
    end

    [first | Enum.filter(others, wanted)]
  end

  @doc "Whether it brings PyTorch."
  @spec torch?(t) :: boolean
  def torch?(profile), do: profile.torch != %{}

  @doc "Whether `manifest` says that it is installed from these lock files. A release may leave them out: then it is."
  @spec current?(t, EnvironmentManifest.t()) :: boolean
  def current?(%__MODULE__{} = profile, manifest) do
    case manifest["profiles"][profile.name] do
      %{"lock_sha256" => installed} -> lock_sha256(profile) in [installed, nil]
      _not_installed -> false
    end
  end

  @doc "The checksum of the profile's lock files; `nil` without the files."
  @spec lock_sha256(t) :: String.t() | nil
  def lock_sha256(%__MODULE__{} = profile) do
    read = Enum.map(lock_paths(profile) ++ torch_lock(profile, :cuda12), &File.read/1)

    if Enum.all?(read, &match?({:ok, _lock}, &1)),
      do: :sha256 |> :crypto.hash(Enum.map(read, &elem(&1, 1))) |> Base.encode16(case: :lower)
  end

  @doc "The profile's lock files, with the lock of this build of PyTorch (`nil`: with none)."
  @spec lock_paths(t, :locked | :cuda12 | nil) :: [Path.t()]
  def lock_paths(%__MODULE__{} = profile, torch \\ :locked),
    do: Enum.map(profile.locks, &lock_file/1) ++ torch_lock(profile, torch)

  defp torch_lock(profile, build), do: profile.torch[build] |> List.wrap() |> Enum.map(&lock_file/1)

  @doc "The newest version of PyTorch that is locked, as `\"2.15.0\"`; `nil` if no profile installs it."
  @spec torch_version([t], :locked | :cuda12) :: String.t() | nil
  def torch_version(profiles, build \\ :locked),
    do: profiles |> torch_requirements(build) |> Enum.map(&elem(&1, 0)) |> Enum.max(Version, fn -> nil end)

  @doc "The versions of PyTorch that are locked, each with the marker that says for which Python: `\"\"` for all."
  @spec torch_requirements([t], :locked | :cuda12) :: [{version :: String.t(), marker :: String.t()}]
  def torch_requirements(profiles, build \\ :locked) do
    for profile <- profiles,
        lock <- torch_lock(profile, build),
        {:ok, text} <- [File.read(lock)],
        [_line, version | marker] <- Regex.scan(~r/^torch==([\w.]+)(?: *; *([^\\\n]*))?/m, text),
        do: {version, marker |> Enum.join() |> String.trim()}
  end

  @doc "A package with its version, if known."
  @spec named(String.t(), %{optional(String.t()) => String.t() | nil}) :: String.t()
  def named(package, versions), do: String.trim("#{package} #{versions[package]}")

  @doc "The path of a lock file of this library."
  @spec lock_file(String.t()) :: Path.t()
  def lock_file(name), do: priv("locks", name)

  @doc "The path of a script of the setup."
  @spec script(String.t()) :: Path.t()
  def script(name), do: priv("provision", name)

  # A test's own files have absolute paths.
  defp priv(_folder, "/" <> _rest = path), do: path
  defp priv(folder, name), do: Application.app_dir(:chatterbex, Path.join(["priv/python", folder, name]))
end
