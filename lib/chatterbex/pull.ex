defmodule Chatterbex.Pull do
  @moduledoc false
  # An Enumerable, taken one element at a time: what Enum and Stream do not offer.

  @typedoc "Use each only once: `next/1` gives the one for what is left."
  @opaque t :: (Enumerable.acc() -> Enumerable.result())

  @spec open(Enumerable.t()) :: t
  def open(enumerable), do: &Enumerable.reduce(enumerable, &1, fn element, _last -> {:suspend, element} end)

  @doc """
  The next element. The Enumerable has closed what it had open when there is none, and when it raises.
  """
  @spec next(t) :: {:ok, term, t} | :done
  def next(pull) do
    case pull.({:cont, nil}) do
      {:suspended, element, pull} -> {:ok, element, pull}
      {_done_or_halted, _last} -> :done
    end
  end

  @doc """
  Closes an Enumerable of which not all was taken.
  """
  @spec close(t) :: :ok
  def close(pull) do
    pull.({:halt, nil})
    :ok
  end
end
