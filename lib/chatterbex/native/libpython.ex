defmodule Chatterbex.Native.LibPython do
  @moduledoc false
  # The NIF of native/libpython: opens libpython with global symbols, and needs no Python itself.

  alias Chatterbex.Native.Library

  @spec open(Path.t()) :: {:ok, %{version: String.t()}} | {:error, {atom, String.t(), map}}
  def open(path), do: first_call(fn -> __MODULE__.open(path) end)

  defp first_call(again) do
    Library.first_call(:libpython, fn -> :erlang.load_nif(Library.path(:libpython), 0) end, again)
  end
end
