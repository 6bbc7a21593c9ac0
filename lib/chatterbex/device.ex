defmodule Chatterbex.Device do
  @moduledoc """
  Where a model runs.

  A device is `:auto`, `:cpu`, `:mps` (Apple Silicon), `:cuda` or `{:cuda, n}` (NVIDIA, the n-th, from 0), or the
  same as a string: `"auto"`, `"cpu"`, `"mps"`, `"cuda"`, `"cuda:1"`.

  `:auto` takes CUDA, then MPS, then the CPU: the first that works. Any device that turns out not to work
  falls back to the CPU, unless the server has `fallback: false`.
  """

  @type t :: :auto | :cpu | :mps | :cuda | {:cuda, non_neg_integer}

  @typedoc """
  What `Chatterbex.devices/0` says of one device. `reason` says why it is not available, else it is `nil`.
  """
  @type description :: %{
          required(:device) => t,
          required(:name) => String.t(),
          required(:available) => boolean,
          required(:reason) => String.t() | nil
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
  def parse(device) when device in [:auto, :cpu, :mps, :cuda], do: {:ok, device}
  def parse({:cuda, n} = device) when is_integer(n) and n >= 0, do: {:ok, device}
  def parse("auto"), do: {:ok, :auto}
  def parse("cpu"), do: {:ok, :cpu}
  def parse("mps"), do: {:ok, :mps}
  def parse("cuda"), do: {:ok, :cuda}

  def parse("cuda:" <> number) do
    case Integer.parse(number) do
      {n, ""} when n >= 0 -> {:ok, {:cuda, n}}
      _other -> :error
    end
  end

  def parse(_other), do: :error

  @doc """
  The device's name as a string, as PyTorch writes it.

  ## Examples

      iex> Chatterbex.Device.to_string({:cuda, 1})
      "cuda:1"
  """
  @spec to_string(t) :: String.t()
  def to_string({:cuda, n}), do: "cuda:#{n}"
  def to_string(device) when is_atom(device), do: Atom.to_string(device)

  # The devices of this machine as far as they can be told without PyTorch.
  @doc false
  @spec local() :: [description]
  def local, do: [cpu(), mps(), cuda()]

  defp cpu do
    %{device: :cpu, name: "CPU, #{System.schedulers_online()} cores", available: true, reason: nil}
  end

  defp mps do
    reason =
      case {:os.type(), architecture()} do
        {{:unix, :darwin}, "aarch64" <> _} -> "the built-in voice runs on the CPU only"
        {{:unix, :darwin}, arch} -> "MPS needs Apple Silicon; this Mac is #{arch}"
        {{_family, os}, _arch} -> "MPS needs macOS on Apple Silicon; this is #{os}"
      end

    %{device: :mps, name: "Apple MPS", available: false, reason: reason}
  end

  defp cuda do
    driver = "/proc/driver/nvidia/version"

    reason =
      if File.exists?(driver),
        do: "the built-in voice runs on the CPU only",
        else: "no NVIDIA driver (looked for #{driver})"

    %{device: :cuda, name: "NVIDIA CUDA", available: false, reason: reason}
  end

  defp architecture, do: List.to_string(:erlang.system_info(:system_architecture))
end
