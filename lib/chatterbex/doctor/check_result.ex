defmodule Chatterbex.Doctor.CheckResult do
  @moduledoc false
  # The result of one check.

  alias Chatterbex.Doctor

  @spec new(atom, String.t(), atom, String.t(), String.t() | nil, map) :: Doctor.check()
  def new(section, name, status, message, remedy \\ nil, details \\ %{}) do
    %{section: section, name: name, status: status, message: message, remedy: remedy, details: details}
  end

  @doc """
  A number of seconds as people read it.
  """
  @spec duration(number) :: String.t()
  def duration(seconds) when seconds < 1, do: "#{round(seconds * 1000)} ms"
  def duration(seconds), do: :erlang.float_to_binary(seconds * 1.0, decimals: 1) <> " s"
end
