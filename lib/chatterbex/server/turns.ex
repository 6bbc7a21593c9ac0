defmodule Chatterbex.Server.Turns do
  @moduledoc false
  # Whose turn is next: higher priorities first; within a priority, first come, first served.
  #
  # A request that has more to be spoken goes to the end of its line after each piece, so that a book does not
  # keep a sentence waiting.

  @ranks %{high: 0, normal: 1, low: 2}

  defstruct next: 0, line: :gb_trees.empty()

  @typedoc "A place in the line, which sorts before all places after it."
  @type place :: {0..2, non_neg_integer}

  @type t :: %__MODULE__{next: non_neg_integer, line: :gb_trees.tree(place, reference)}

  @spec new() :: t
  def new, do: %__MODULE__{}

  @doc """
  Puts a request at the end of its priority's line, and tells its place.
  """
  @spec add(t, reference, :high | :normal | :low) :: {place, t}
  def add(%__MODULE__{next: next, line: line}, ref, priority) do
    place = {Map.fetch!(@ranks, priority), next}
    {place, %__MODULE__{next: next + 1, line: :gb_trees.insert(place, ref, line)}}
  end

  @doc """
  Takes a place out of the line.
  """
  @spec delete(t, place) :: t
  def delete(%__MODULE__{} = turns, place), do: %{turns | line: :gb_trees.delete(place, turns.line)}

  @doc """
  Takes out the request whose turn it is.
  """
  @spec take(t) :: {reference, t} | :none
  def take(%__MODULE__{line: line} = turns) do
    if :gb_trees.is_empty(line) do
      :none
    else
      {_place, ref, line} = :gb_trees.take_smallest(line)
      {ref, %{turns | line: line}}
    end
  end
end
