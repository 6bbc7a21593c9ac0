defmodule Chatterbex.Setup.TorchPlan do
  @moduledoc false
  # Chooses the device and the build of PyTorch.
  #
  # The lock has the build that the package index offers: on Linux that is one with NVIDIA's libraries. There an index may
  # have a smaller one for the CPU only, as version "2.15.0+cpu", which is used for the CPU if available. A second lock
  # has an older PyTorch, for drivers and cards that are too old for the first one. A version that the user names is
  # installed from the index.

  alias Chatterbex.Error
  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, NvidiaDriver, PackageProfile, SetupRun}

  @enforce_keys [:device, :build]
  defstruct [:device, :build, :reason, :version, :choice]

  @typedoc """
  `build` is `:locked`, `:cuda12`, `:cpu_only` or `:chosen`: of the `version` that was named. `reason` says why the device is
  not the one that was asked for, `choice` which build for CUDA it is, and why.
  """
  @type t :: %__MODULE__{device: :mps | :cuda | :cpu, build: atom, reason: String.t() | nil}

  @builds %{locked: "locked", cuda12: "cuda 12", cpu_only: "cpu only", chosen: "chosen"}

  @doc """
  The plan for a run, in addition to what `manifest` has; `nil` if PyTorch is not wanted. `without_torch` is the command
  that sets up the built-in voice, for the error.
  """
  @spec plan(SetupRun.t(), EnvironmentManifest.t() | nil, String.t()) :: {:ok, t | nil} | {:error, Error.t()}
  def plan(run, manifest, without_torch) do
    before = recorded(manifest)
    needed? = run.torch != nil or run.models != [] or run.languages != []
    intel_mac? = run.machine.os == :macos and run.machine.architecture == "x86_64"

    cond do
      not Enum.any?(run.profiles, &PackageProfile.torch?/1) -> {:ok, nil}
      run.device == nil and not needed? and before == nil -> {:ok, nil}
      intel_mac? and run.device in [nil, :auto] and not needed? -> {:ok, nil}
      intel_mac? -> {:error, intel_mac(run, without_torch)}
      true -> {:ok, decide(run, before)}
    end
  end

  defp decide(run, before) do
    asked = run.device || before[:device] || :auto
    version = run.torch || before[:version]
    {device, reason} = choose(asked, run.machine, version)
    version = if version != PackageProfile.torch_version(run.profiles), do: version
    {build, choice} = build(device, version, if(run.force, do: nil, else: before), run)
    %__MODULE__{device: device, build: build, reason: reason, version: version, choice: choice}
  end

  defp build(_device, version, _before, _run) when version != nil, do: {:chosen, nil}

  defp build(:cuda, nil, _before, run) do
    {:ok, build, why} = NvidiaDriver.build(run.machine.nvidia, run.machine.architecture)
    version = PackageProfile.torch_version(run.profiles, build.name)
    {build.name, "PyTorch #{version} for CUDA #{build.cuda} is the build to install: #{why}"}
  end

  # It runs on the CPU as well.
  defp build(:cpu, nil, %{build: build}, _run) when build in [:locked, :cuda12], do: {build, nil}
  defp build(:cpu, nil, _before, %{machine: %HostMachine{os: :linux}}), do: {:cpu_only, nil}
  defp build(_device, nil, _before, _run), do: {:locked, nil}

  @doc """
  The device that a machine can use, and the reason if it is not the requested one.

  For a `version` that is not locked, it is not known what its builds can run. The test afterwards shows it.
  """
  @spec choose(atom, HostMachine.t(), String.t() | nil) :: {:mps | :cuda | :cpu, String.t() | nil}
  def choose(device, machine, version \\ nil)
  def choose(:cpu, _machine, _version), do: {:cpu, nil}
  def choose(:mps, %HostMachine{os: :macos, architecture: "aarch64"}, _version), do: {:mps, nil}

  def choose(:mps, %HostMachine{os: os, architecture: architecture}, _version) do
    system = Map.get(%{linux: "Linux", macos: "macOS", unix: "another Unix"}, os, "#{os}")
    {:cpu, "MPS needs macOS on Apple Silicon; this is #{system} on #{architecture}"}
  end

  def choose(:cuda, %HostMachine{os: :macos}, _version),
    do: {:cpu, "CUDA needs an NVIDIA GPU, and macOS has no driver for one"}

  def choose(:cuda, %HostMachine{nvidia: nil}, _version),
    do: {:cpu, "no NVIDIA driver was found (looked for #{Enum.join(NvidiaDriver.files(), " and ")})"}

  def choose(:cuda, _machine, version) when version != nil, do: {:cuda, nil}

  def choose(:cuda, machine, nil) do
    case NvidiaDriver.build(machine.nvidia, machine.architecture) do
      {:ok, _build, _why} -> {:cuda, nil}
      {:error, why} -> {:cpu, why}
    end
  end

  # If the machine has no other device, the CPU is the right one, and needs no reason.
  def choose(:auto, %HostMachine{os: :macos} = machine, _version), do: {elem(choose(:mps, machine), 0), nil}
  def choose(:auto, %HostMachine{nvidia: nil}, _version), do: {:cpu, nil}
  def choose(:auto, machine, version), do: choose(:cuda, machine, version)

  @doc "The best device of a machine, as far as known without PyTorch."
  @spec fitting_device(HostMachine.t()) :: :mps | :cuda | :cpu
  def fitting_device(machine), do: elem(choose(:auto, machine), 0)

  @doc "The manifest's entry for PyTorch, if it has one."
  @spec recorded(EnvironmentManifest.t() | nil) :: map | nil
  def recorded(%{"torch" => %{"device" => device, "build" => build} = torch}) do
    %{
      device: Enum.find([:mps, :cuda, :cpu], &(Atom.to_string(&1) == device)),
      build: Enum.find_value(@builds, fn {name, text} -> text == build && name end),
      version: torch["requested"],
      fault: torch["fault"]
    }
  end

  def recorded(_none), do: nil

  @doc "The entry for the manifest: the device, and `fault`, the reason if that device does not work."
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

  @doc "Whether `manifest` has what is wanted. A device that did not work is tried again if the user names it."
  @spec there?(SetupRun.t(), EnvironmentManifest.t()) :: boolean
  def there?(%{plan: nil}, _manifest), do: true

  def there?(%{plan: plan} = run, manifest) do
    before = recorded(manifest)

    before != nil and (before.fault == nil or run.device == nil) and
      Map.take(before, [:device, :build, :version]) == Map.take(plan, [:device, :build, :version])
  end

  @doc "A line that names the device that PyTorch is set up for, and says why if it is not the requested one."
  @spec announcement(SetupRun.t()) :: String.t() | nil
  def announcement(%{plan: nil, device: :auto} = run),
    do:
      "--auto: PyTorch #{PackageProfile.torch_version(run.profiles)} is not made for Macs with Intel processors."

  def announcement(%{plan: nil}), do: nil

  def announcement(%{plan: plan, device: device}) do
    asked = "--#{device || :cuda}"

    cond do
      plan.reason -> "#{asked}: #{plan.reason}. PyTorch is set up for the CPU."
      plan.choice -> "#{asked}: #{plan.choice}."
      device == :auto -> "--auto: PyTorch is set up for #{name(plan.device)}."
      true -> nil
    end
  end

  @doc "A device in words."
  @spec name(atom) :: String.t()
  def name(:cpu), do: "the CPU"
  def name(:cuda), do: "CUDA"
  def name(:mps), do: "MPS"

  defp intel_mac(run, without_torch) do
    Error.new(
      :not_supported,
      "PyTorch #{PackageProfile.torch_version(run.profiles)}, which the Chatterbox models need, is not made for Macs with " <>
        "Intel processors: 2.2 was the last. The built-in voice runs there: #{without_torch}\n" <>
        "hint: on Apple Silicon this Erlang is one for Intel, under Rosetta: install Elixir for arm64 instead.",
      %{device: run.device, architecture: run.machine.architecture}
    )
  end
end
