defmodule Chatterbex.Device.DeviceName do
  @moduledoc false
  # Reads and writes the names of devices: see `Chatterbex.Device`. It depends on no other module, so that options can be
  # checked without everything that looks for devices.

  alias Chatterbex.Device

  @spec parse(term) :: {:ok, Device.t()} | :error
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

  @spec to_string(Device.t()) :: String.t()
  def to_string({:cuda, n}), do: "cuda:#{n}"
  def to_string(device) when is_atom(device), do: Atom.to_string(device)
end
