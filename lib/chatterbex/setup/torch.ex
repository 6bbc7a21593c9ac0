defmodule Chatterbex.Setup.Torch do
  @moduledoc false
  # PyTorch: for which device, and which build of it.
  #
  # The lock has what the package index offers: on Linux with x86_64 that is a build with NVIDIA's libraries. There an
  # index may have a smaller one for the CPU only, as version "2.6.0+cpu"; it is taken for the CPU if it can be had.
  # Whoever names a version gets that one, as the index has it.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Machine, Manifest, Profile, Request}

  @enforce_keys [:device, :build]
  defstruct [:device, :build, :reason, :version]

  @typedoc """
  `reason` says why the device is not the one that was asked for. `version` is the one that was named, for the build
  `:chosen`.
  """
  @type t :: %__MODULE__{
          device: :mps | :cuda | :cpu,
          build: :locked | :cpu_only | :chosen,
          reason: String.t() | nil,
          version: String.t() | nil
        }

  @builds %{locked: "locked", cpu_only: "cpu only", chosen: "chosen"}

  @doc """
  What is wanted on the request's machine, beside what `manifest` has; `nil` where PyTorch is not.
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
    {device, reason} = choose(asked, request.machine)
    version = request.torch || before[:version]
    version = if version != Profile.torch_version(request.profiles), do: version
    before = if request.force, do: nil, else: before

    %__MODULE__{
      device: device,
      build: build(device, version, before, request.machine),
      reason: reason,
      version: version
    }
  end

  defp build(_device, version, _before, _machine) when version != nil, do: :chosen
  # It runs on the CPU as well.
  defp build(:cpu, nil, %{build: :locked}, _machine), do: :locked
  defp build(:cpu, nil, _before, %Machine{os: :linux, architecture: "x86_64"}), do: :cpu_only
  defp build(_device, nil, _before, _machine), do: :locked

  @doc """
  The device that a machine can have, and where that is not the one asked for, why.
  """
  @spec choose(:auto | :mps | :cuda | :cpu, Machine.t()) :: {:mps | :cuda | :cpu, String.t() | nil}
  def choose(:auto, machine), do: {Machine.fitting_device(machine), nil}
  def choose(:cpu, _machine), do: {:cpu, nil}
  def choose(:mps, %Machine{os: :macos, architecture: "aarch64"}), do: {:mps, nil}

  def choose(:mps, machine),
    do: {:cpu, "MPS needs macOS on Apple Silicon; this is #{described(machine)}"}

  def choose(:cuda, %Machine{os: :macos}),
    do: {:cpu, "CUDA needs an NVIDIA GPU, and macOS has no driver for one"}

  def choose(:cuda, %Machine{nvidia: nil}),
    do: {:cpu, "no NVIDIA driver was found (looked for #{Enum.join(Machine.nvidia_files(), " and ")})"}

  def choose(:cuda, %Machine{architecture: "x86_64"}), do: {:cuda, nil}

  def choose(:cuda, machine),
    do: {:cpu, "the PyTorch of the package index has CUDA for x86_64 only; this is #{described(machine)}"}

  @doc """
  What the manifest says of PyTorch, if it has it.
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
  What the manifest is to say of it: for which device, and `fault`, why that one does not work after all.
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
  Whether `manifest` has what is wanted. A device that did not work is tried again when it is asked for.
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
  A line that says for which device it is set up, and why not for the one that was asked for.
  """
  @spec announcement(t | nil, Request.t()) :: String.t() | nil
  def announcement(nil, %{device: :auto} = request),
    do:
      "--auto: PyTorch #{Profile.torch_version(request.profiles)} is not made for Macs with Intel processors."

  def announcement(nil, _request), do: nil

  def announcement(%{reason: nil} = plan, %{device: :auto}),
    do: "--auto: PyTorch is set up for #{name(plan.device)}."

  def announcement(%{reason: nil}, _request), do: nil

  def announcement(plan, request),
    do: "--#{request.device}: #{plan.reason}. PyTorch is set up for the CPU."

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

  # It did not name a device, and wants nothing that needs one.
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
