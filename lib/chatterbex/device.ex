defmodule Chatterbex.Device do
  @moduledoc """
  The device that a model runs on.

  A device is `:auto`, `:cpu`, `:mps` (Apple Silicon), `:cuda` or `{:cuda, n}` (NVIDIA, the n-th, from 0), or the
  same as a string: `"auto"`, `"cpu"`, `"mps"`, `"cuda"`, `"cuda:1"`.

  `:auto` picks the first that works of CUDA, MPS and the CPU. If a device turns out not to work, the model falls back
  to the CPU, unless the server has `fallback: false`.
  """

  alias Chatterbex.Device.{DeviceName, Probe}
  alias Chatterbex.Python
  alias Chatterbex.Setup.{HostMachine, TorchPlan}

  @type t :: :auto | :cpu | :mps | :cuda | {:cuda, non_neg_integer}

  @typedoc """
  A device in `Chatterbex.devices/0`. `reason` says why it is not available, and `warning` what to know about an available
  one; `memory` is in bytes. Each is `nil` if there is nothing to say.
  """
  @type description :: %{
          device: t,
          name: String.t(),
          available: boolean,
          reason: String.t() | nil,
          warning: String.t() | nil,
          memory: pos_integer | nil
        }

  @doc """
  Reads a device.

  ## Examples

      iex> Chatterbex.Device.parse("cuda:1")
      {:ok, {:cuda, 1}}

      iex> Chatterbex.Device.parse(:mps)
      {:ok, :mps}

      iex> Chatterbex.Device.parse("gpu")
      :error
  """
  @spec parse(term) :: {:ok, t} | :error
  defdelegate parse(device), to: DeviceName

  @doc """
  The device's name as a string, as PyTorch writes it.

  ## Examples

      iex> Chatterbex.Device.to_string({:cuda, 1})
      "cuda:1"
  """
  @spec to_string(t) :: String.t()
  defdelegate to_string(device), to: DeviceName

  # See `Chatterbex.devices/0`.
  @doc false
  @spec local() :: [description]
  def local do
    case Python.find(profiles: ["hibari", "torch"]) do
      {:ok, python} -> with_torch(python)
      {:error, _not_set_up} -> without_torch(HostMachine.this(), &not_set_up/1)
    end
  end

  # Devices do not come or go while the VM runs. A failed look is repeated, but not by every caller.
  @again_after 30_000
  @timeout 15_000

  defp with_torch(python) do
    key = {__MODULE__, :local}
    identity = {python.program, :erlang.phash2(python.manifest)}

    # One process looks; other callers wait for it.
    :global.trans({key, self()}, fn -> known(key, identity) || look(key, identity, python) end, [node()])
  end

  defp known(key, identity) do
    case :persistent_term.get(key, nil) do
      {^identity, until, devices} ->
        if until == :infinity or until > System.monotonic_time(:millisecond), do: devices

      _unknown ->
        nil
    end
  end

  defp look(key, identity, python) do
    {until, devices} =
      case Probe.list(python, @timeout) do
        {:ok, found} ->
          {:infinity, Enum.map(found.devices, &description/1)}

        {:error, why} ->
          {System.monotonic_time(:millisecond) + @again_after,
           without_torch(HostMachine.this(), fn _device -> why end)}
      end

    :persistent_term.put(key, {identity, until, devices})
    devices
  end

  # As PyTorch's side tells it.
  @doc false
  @spec description(map) :: description
  def description(%{"device" => device} = found) do
    {:ok, device} = parse(device)

    %{
      device: device,
      name: found["name"],
      available: found["available"],
      reason: found["reason"],
      warning: found["warning"],
      memory: found["memory"]
    }
  end

  # `why` tells of a device that the machine could have.
  @doc false
  @spec without_torch(HostMachine.t(), (:mps | :cuda -> String.t())) :: [description]
  def without_torch(machine, why) do
    cpu = %{device: :cpu, name: "CPU, #{System.schedulers_online()} cores", available: true, reason: nil}

    others =
      for {device, name} <- [mps: "Apple MPS", cuda: "NVIDIA CUDA"] do
        reason =
          with {^device, nil} <- TorchPlan.choose(device, machine), do: why.(device), else: ({_cpu, no} -> no)

        %{device: device, name: name, available: false, reason: reason}
      end

    Enum.map([cpu | others], &Map.merge(&1, %{warning: nil, memory: nil}))
  end

  defp not_set_up(device) do
    "PyTorch is not set up. Run: #{Python.setup_command(Python.home(), device: device)}"
  end
end
