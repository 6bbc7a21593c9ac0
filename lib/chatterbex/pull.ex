defmodule Chatterbex.Pull do
  @moduledoc false
  # Pulls one element at a time from an Enumerable, which Enum and Stream cannot do.

  @typedoc "Use each only once: `next/1` returns the one for the rest."
  @opaque t :: (Enumerable.acc() -> Enumerable.result())

  @spec open(Enumerable.t()) :: t
  def open(enumerable), do: &Enumerable.reduce(enumerable, &1, fn element, _last -> {:suspend, element} end)

  @doc """
  Returns the next element. When there are no more, or when it raises, the Enumerable has closed its resources.
  """
  @spec next(t) :: {:ok, term, t} | :done
  def next(pull) do
    case pull.({:cont, nil}) do
      {:suspended, element, pull} -> {:ok, element, pull}
      {_done_or_halted, _last} -> :done
    end
  end

  @doc """
  Closes an Enumerable before its end.
  """
  @spec close(t) :: :ok
  def close(pull) do
    pull.({:halt, nil})
    :ok
  end
end
