defmodule Chatterbex.Setup.Torch do
  @moduledoc false
  # Chooses the device and the build of PyTorch.
  #
  # The lock has the build that the package index offers: on Linux that is one with NVIDIA's libraries. There an index may
  # have a smaller one for the CPU only, as version "2.15.0+cpu", which is used for the CPU if available. A second lock
  # has an older PyTorch, for drivers and cards that are too old for the first one. A version that the user names is
  # installed from the index.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Machine, Manifest, Nvidia, Profile, Request}

  @enforce_keys [:device, :build]
  defstruct [:device, :build, :reason, :version, :choice]

  @typedoc """
  `reason` says why the device is not the one that was asked for. `version` is the one that was named, for the build
  `:chosen`. `choice` says which build for CUDA it is, and why.
  """
  @type t :: %__MODULE__{
          device: :mps | :cuda | :cpu,
          build: :locked | :cuda12 | :cpu_only | :chosen,
          reason: String.t() | nil,
          version: String.t() | nil,
          choice: String.t() | nil
        }

  @builds %{locked: "locked", cuda12: "cuda 12", cpu_only: "cpu only", chosen: "chosen"}

  @doc """
  The plan for the request's machine, in addition to what `manifest` has; `nil` if PyTorch is not wanted.
  """
  @spec plan(Request.t(), Manifest.t() | nil) :: {:ok, t | nil} | {:error, Error.t()}
  def plan(request, manifest) do
    before = recorded(manifest)

    cond do
      not Enum.any?(request.profiles, &Profile.torch?/1) -> {:ok, nil}
      not asked?(request) and before == nil -> {:ok, nil}
      intel_mac?(request.machine) and optional?(request) -> {:ok, nil}
      intel_mac?(request.machine) -> {:error, intel_mac(request)}
      true -> {:ok, decide(request, before)}
    end
  end

  defp asked?(request),
    do: request.device != nil or request.torch != nil or request.models != [] or request.languages != []

  defp decide(request, before) do
    asked = request.device || before[:device] || :auto
    {device, reason} = choose(asked, request.machine, request.torch || before[:version])
    version = request.torch || before[:version]
    version = if version != Profile.torch_version(request.profiles), do: version
    before = if request.force, do: nil, else: before

    {build, choice} = build(device, version, before, request)

    %__MODULE__{device: device, build: build, reason: reason, version: version, choice: choice}
  end

  defp build(_device, version, _before, _request) when version != nil, do: {:chosen, nil}

  defp build(:cuda, nil, _before, request) do
    {:ok, build, why} = Nvidia.build(request.machine.nvidia, request.machine.architecture)
    version = Profile.torch_version(request.profiles, build.name)
    {build.name, "PyTorch #{version} for CUDA #{build.cuda} is the build to install: #{why}"}
  end

  # It runs on the CPU as well.
  defp build(:cpu, nil, %{build: build}, _request) when build in [:locked, :cuda12], do: {build, nil}
  defp build(:cpu, nil, _before, %{machine: %Machine{os: :linux}}), do: {:cpu_only, nil}
  defp build(_device, nil, _before, _request), do: {:locked, nil}

  @doc """
  The device that a machine can use, and the reason if it is not the requested one.

  For a `version` that is not locked, it is not known what its builds can run. The test afterwards shows it.
  """
  @spec choose(:auto | :mps | :cuda | :cpu, Machine.t(), String.t() | nil) ::
          {:mps | :cuda | :cpu, String.t() | nil}
  def choose(device, machine, version \\ nil)
  def choose(:cpu, _machine, _version), do: {:cpu, nil}
  def choose(:mps, %Machine{os: :macos, architecture: "aarch64"}, _version), do: {:mps, nil}

  def choose(:mps, machine, _version),
    do: {:cpu, "MPS needs macOS on Apple Silicon; this is #{described(machine)}"}

  def choose(:cuda, %Machine{os: :macos}, _version),
    do: {:cpu, "CUDA needs an NVIDIA GPU, and macOS has no driver for one"}

  def choose(:cuda, %Machine{nvidia: nil}, _version),
    do: {:cpu, "no NVIDIA driver was found (looked for #{Enum.join(Nvidia.files(), " and ")})"}

  def choose(:cuda, _machine, version) when version != nil, do: {:cuda, nil}

  def choose(:cuda, machine, nil) do
    case Nvidia.build(machine.nvidia, machine.architecture) do
      {:ok, _build, _why} -> {:cuda, nil}
      {:error, why} -> {:cpu, why}
    end
  end

  # If the machine has no other device, the CPU is the right one, and needs no reason.
  def choose(:auto, %Machine{os: :macos} = machine, _version), do: {Machine.fitting_device(machine), nil}
  def choose(:auto, %Machine{nvidia: nil} = machine, _version), do: {Machine.fitting_device(machine), nil}
  def choose(:auto, machine, version), do: choose(:cuda, machine, version)

  @doc """
  The manifest's entry for PyTorch, if it has one.
  """
  @spec recorded(Manifest.t() | nil) :: map | nil
  def recorded(%{"torch" => %{"device" => device, "build" => build} = torch}) do
    %{
      device: Enum.find([:mps, :cuda, :cpu], &(Atom.to_string(&1) == device)),
      build: Enum.find_value(@builds, fn {name, text} -> text == build && name end),
      version: torch["requested"],
      fault: torch["fault"]
    }
  end

  def recorded(_none), do: nil

  @doc """
  The entry for the manifest: the device, and `fault`, the reason if that device does not work.
  """
  @spec record(t, String.t(), String.t() | nil) :: map
  def record(plan, installed, fault) do
    %{
      "version" => installed,
      "device" => Atom.to_string(plan.device),
      "build" => @builds[plan.build],
      "requested" => plan.version,
      "fault" => fault
    }
  end

  @doc """
  Whether `manifest` has what is wanted. A device that did not work is tried again if the request names it.
  """
  @spec there?(t | nil, Request.t(), Manifest.t()) :: boolean
  def there?(nil, _request, _manifest), do: true

  def there?(plan, request, manifest) do
    before = recorded(manifest)

    before != nil and
      Map.take(before, [:device, :build, :version]) == Map.take(plan, [:device, :build, :version]) and
      (before.fault == nil or request.device == nil)
  end

  @doc """
  A line that names the device that PyTorch is set up for, and says why if it is not the requested one.
  """
  @spec announcement(t | nil, Request.t()) :: String.t() | nil
  def announcement(nil, %{device: :auto} = request),
    do:
      "--auto: PyTorch #{Profile.torch_version(request.profiles)} is not made for Macs with Intel processors."

  def announcement(nil, _request), do: nil

  def announcement(%{reason: nil, choice: choice}, request) when choice != nil,
    do: "--#{request.device || :cuda}: #{choice}."

  def announcement(%{reason: nil} = plan, %{device: :auto}),
    do: "--auto: PyTorch is set up for #{name(plan.device)}."

  def announcement(%{reason: nil}, _request), do: nil

  def announcement(plan, request),
    do: "--#{request.device || :cuda}: #{plan.reason}. PyTorch is set up for the CPU."

  @doc """
  A device in words.
  """
  @spec name(atom) :: String.t()
  def name(:cpu), do: "the CPU"
  def name(:cuda), do: "CUDA"
  def name(:mps), do: "MPS"

  defp described(%Machine{os: os, architecture: architecture}) do
    system = Map.get(%{linux: "Linux", macos: "macOS", unix: "another Unix"}, os, "#{os}")
    "#{system} on #{architecture}"
  end

  defp intel_mac?(%Machine{os: os, architecture: architecture}), do: os == :macos and architecture == "x86_64"

  # The user named no device, and wants nothing that needs one.
  defp optional?(request),
    do:
      request.device in [nil, :auto] and request.torch == nil and request.models == [] and
        request.languages == []

  defp intel_mac(request) do
    Error.new(
      :not_supported,
      "PyTorch #{Profile.torch_version(request.profiles)}, which the Chatterbox models need, is not made for Macs with " <>
        "Intel processors: 2.2 was the last. The built-in voice runs there: #{Python.setup_command(request.home)}\n" <>
        "hint: on Apple Silicon this Erlang is one for Intel, under Rosetta: install Elixir for arm64 instead.",
      %{device: request.device, architecture: request.machine.architecture}
    )
  end
end
