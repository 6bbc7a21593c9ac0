defmodule Chatterbex.Server.Request do
  @moduledoc false
  # A request of a caller: pieces of text that are spoken one after another, or several at once where the model
  # gains from it.
  #
  # `ref` is an alias of the caller's: what is sent to it reaches the caller only while it still listens.
  # `running` are the pieces that the model has, by the engine's ids. `in_line` says whether it waits for a turn.

  @enforce_keys [:ref, :monitor, :timer, :opened_at, :priority, :options]
  defstruct [
    :ref,
    :monitor,
    :timer,
    :opened_at,
    :priority,
    :options,
    pieces: :queue.new(),
    running: %{},
    started: false,
    in_line: false
  ]

  @typedoc """
  `number` counts from 0. `options` are those of this piece beside the request's, for the model. `stream` asks
  for chunks.
  """
  @type piece :: %{number: non_neg_integer, text: String.t(), stream: boolean, options: map}

  @type t :: %__MODULE__{
          ref: reference,
          monitor: reference,
          timer: reference | nil,
          opened_at: integer,
          priority: :high | :normal | :low,
          options: map,
          pieces: :queue.queue(piece),
          running: %{pos_integer => non_neg_integer},
          started: boolean,
          in_line: boolean
        }

  @doc """
  Adds pieces to be spoken.
  """
  @spec add(t, [piece]) :: t
  def add(%__MODULE__{} = request, pieces),
    do: %{request | pieces: Enum.reduce(pieces, request.pieces, &:queue.in/2)}

  @doc """
  Whether it may have another piece spoken now; `parallel` is how many at once.
  """
  @spec ready?(t, pos_integer) :: boolean
  def ready?(%__MODULE__{} = request, parallel),
    do: not :queue.is_empty(request.pieces) and map_size(request.running) < parallel
end
