defmodule Chatterbex.Server.Turns do
  @moduledoc false
  # Whose turn is next: those of a higher priority first, and within a priority everyone in turn.
  #
  # A request that has more to be spoken goes to the end of its line after each piece, so that a book does not
  # keep a sentence waiting.

  @priorities [:high, :normal, :low]

  defstruct lines: Map.new(@priorities, &{&1, :queue.new()})

  @type t :: %__MODULE__{lines: %{atom => :queue.queue(reference)}}

  @spec new() :: t
  def new, do: %__MODULE__{}

  @doc """
  Puts a request at the end of its priority's line.
  """
  @spec add(t, reference, :high | :normal | :low) :: t
  def add(%__MODULE__{} = turns, ref, priority),
    do: %{turns | lines: Map.update!(turns.lines, priority, &:queue.in(ref, &1))}

  @doc """
  Takes out the request whose turn it is.
  """
  @spec take(t) :: {reference, t} | :none
  def take(%__MODULE__{} = turns) do
    Enum.find_value(@priorities, :none, fn priority ->
      case :queue.out(Map.fetch!(turns.lines, priority)) do
        {{:value, ref}, line} -> {ref, %{turns | lines: Map.put(turns.lines, priority, line)}}
        {:empty, _line} -> nil
      end
    end)
  end
end
