defmodule Chatterbex.Server.Request do
  @moduledoc false
  # A request of a caller: pieces of text that are spoken one after another, or several at once if the model is faster
  # that way.
  #
  # `ref` is an alias of the caller's: what is sent to it reaches the caller only while it still listens.
  # `deadline` is set if the timer stands for it and not for the request's `:timeout`. `running` are the pieces that
  # the model has, by the engine's ids. `place` is its place in the line, while it waits for a turn. `heard` says that
  # its caller has received a chunk, and `resume` that a sentence may continue after its last chunk if the process died.

  alias Chatterbex.Server.Turns

  @enforce_keys [:ref, :monitor, :timer, :opened_at, :priority, :options]
  defstruct [
    :ref,
    :monitor,
    :timer,
    :opened_at,
    :priority,
    :options,
    :deadline,
    :place,
    pieces: :queue.new(),
    running: %{},
    started: false,
    heard: false,
    resume: false
  ]

  @typedoc """
  `number` counts from 0. `options` are those of this piece, in addition to the request's, for the model. `stream` asks
  for chunks. `skip` is how many bytes of its samples the caller has had from a process that died; `deaths` are the
  ends of processes that had this piece.
  """
  @type piece :: %{
          required(:number) => non_neg_integer,
          required(:text) => String.t(),
          required(:stream) => boolean,
          required(:options) => map,
          optional(:skip) => non_neg_integer,
          optional(:deaths) => [Chatterbex.Peer.reason()]
        }

  @typedoc """
  A piece that the model has. `made` are the bytes of its samples so far, and `told` those of them that the caller has had,
  from this process or one before.
  """
  @type running :: %{piece: piece, made: non_neg_integer, told: non_neg_integer}

  @type t :: %__MODULE__{
          ref: reference,
          monitor: reference,
          timer: reference | nil,
          opened_at: integer,
          priority: :high | :normal | :low,
          options: map,
          deadline: DateTime.t() | nil,
          place: Turns.place() | nil,
          pieces: :queue.queue(piece),
          running: %{pos_integer => running},
          started: boolean,
          heard: boolean,
          resume: boolean
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
