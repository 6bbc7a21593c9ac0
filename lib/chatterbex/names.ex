defmodule Chatterbex.Names do
  @moduledoc false
  # Converts names in answers from Python to atoms.

  @doc """
  Converts the keys of all maps in a value to atoms, at any depth.

  Names come from a model's code, which has few. Should a model make them up, they stay strings once half of the VM's
  atoms are taken.
  """
  @spec atoms(term) :: term
  def atoms(%_struct{} = value), do: value
  def atoms(%{} = map), do: Map.new(map, fn {name, value} -> {atom(name), atoms(value)} end)
  def atoms(list) when is_list(list), do: Enum.map(list, &atoms/1)
  def atoms(value), do: value

  defp atom(name) when is_binary(name) and byte_size(name) <= 255 do
    String.to_existing_atom(name)
  rescue
    ArgumentError -> if(room?() and String.valid?(name), do: String.to_atom(name), else: name)
  end

  defp atom(name), do: name

  defp room?, do: :erlang.system_info(:atom_count) < div(:erlang.system_info(:atom_limit), 2)
end
