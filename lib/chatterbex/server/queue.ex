defmodule Chatterbex.Server.Queue do
  @moduledoc false
  # The requests of a server: which are open, whose turn it is, and which of their pieces the model has.
  #
  # A request is open from `open/2` to `close/2`. A piece that the model has stays in `running` until the model lets go
  # of it, even if its request is closed earlier: it still takes a place in the model's batch.
  #
  # Pieces whose process died are suspects. They run before all others, one at a time and alone, so that it is known which
  # of them it was if the process dies again.
  #
  # Nothing here waits, sends or measures time: `Chatterbex.Server` does.

  alias Chatterbex.Server.{Request, Turns}

  @enforce_keys [:max_queue]
  defstruct [
    :max_queue,
    ready: false,
    max_batch: 1,
    parallel: 1,
    requests: %{},
    turns: Turns.new(),
    running: %{},
    suspects: [],
    alone: nil,
    waiting: 0
  ]

  @typedoc """
  - `max_queue`: how many requests may be open beyond those that the model works on at a time
  - `ready`: whether there is a model
  - `max_batch`: how many pieces the model works on at a time
  - `parallel`: how many of these may belong to one request
  - `running`: the request of each piece that the model has, by the engine's id
  - `suspects`: the pieces that the model had when its process died; `alone`: the engine's id of one that runs again
  - `waiting`: how many open requests the model has not started
  """
  @type t :: %__MODULE__{
          max_queue: non_neg_integer,
          ready: boolean,
          max_batch: pos_integer,
          parallel: pos_integer,
          requests: %{reference => Request.t()},
          turns: Turns.t(),
          running: %{pos_integer => reference},
          suspects: [{reference, Request.piece()}],
          alone: pos_integer | nil,
          waiting: non_neg_integer
        }

  @spec new(non_neg_integer) :: t
  def new(max_queue), do: %__MODULE__{max_queue: max_queue}

  @doc """
  Records that the model is loaded, and how many pieces it works on at a time.
  """
  @spec ready(t, pos_integer, pos_integer) :: t
  def ready(%__MODULE__{} = queue, max_batch, parallel),
    do: %{queue | ready: true, max_batch: max_batch, parallel: parallel}

  @doc """
  The model is gone, with every piece that it had.
  """
  @spec lost(t) :: t
  def lost(%__MODULE__{} = queue), do: %{queue | ready: false, running: %{}, suspects: [], alone: nil}

  @doc """
  Records that the model's process died, with every piece that it had. The pieces are spoken again, except those of
  requests that cannot continue, which are returned, still open, with the reason. `guilty?` decides by a piece's deaths.
  """
  @spec died(t, Chatterbex.Peer.reason(), ([Chatterbex.Peer.reason()] -> boolean)) ::
          {[{:interrupted | {:guilty, Request.piece()}, Request.t()}], t}
  def died(%__MODULE__{} = queue, reason, guilty?) do
    {failed, suspects, requests} =
      queue.running
      |> Enum.sort()
      |> Enum.uniq_by(fn {_id, ref} -> ref end)
      |> Enum.reduce({[], [], queue.requests}, fn {_id, ref}, {failed, suspects, requests} ->
        case requests do
          %{^ref => request} ->
            pieces = request.running |> Enum.sort() |> Enum.map(fn {_id, had} -> again(had, reason) end)
            requests = %{requests | ref => %{request | running: %{}}}

            cond do
              piece = Enum.find(pieces, &guilty?.(&1.deaths)) ->
                {[{{:guilty, piece}, request} | failed], suspects, requests}

              request.heard and not request.resume ->
                {[{:interrupted, request} | failed], suspects, requests}

              true ->
                {failed, [Enum.map(pieces, &{ref, &1}) | suspects], requests}
            end

          _closed ->
            {failed, suspects, requests}
        end
      end)

    suspects = (suspects |> Enum.reverse() |> Enum.concat()) ++ queue.suspects
    {failed, %{queue | ready: false, running: %{}, alone: nil, requests: requests, suspects: suspects}}
  end

  defp again(%{piece: piece, told: told}, reason),
    do: Map.merge(piece, %{skip: told, deaths: [reason | piece[:deaths] || []]})

  @doc """
  Whether a suspect is running or will run, so that nothing else may be given to the model.
  """
  @spec suspicious?(t) :: boolean
  def suspicious?(%__MODULE__{suspects: suspects, alone: alone}), do: suspects != [] or alone != nil

  @doc """
  How many requests may be open. Without a model nothing is worked on.
  """
  @spec limit(t) :: non_neg_integer
  def limit(%__MODULE__{ready: true} = queue), do: queue.max_queue + queue.max_batch
  def limit(%__MODULE__{ready: false} = queue), do: queue.max_queue

  @doc """
  How many requests are open.
  """
  @spec open(t) :: non_neg_integer
  def open(%__MODULE__{requests: requests}), do: map_size(requests)

  @doc """
  Adds a request, unless the queue is full.
  """
  @spec open(t, Request.t()) :: {:ok, t} | :full
  def open(%__MODULE__{} = queue, %Request{} = request) do
    if open(queue) < limit(queue),
      do: {:ok, line_up(%{queue | waiting: queue.waiting + 1}, request)},
      else: :full
  end

  @doc """
  Adds pieces to a request. Does nothing if the request is closed.
  """
  @spec add(t, reference, [Request.piece()]) :: t
  def add(%__MODULE__{} = queue, ref, pieces) do
    case queue.requests do
      %{^ref => request} -> line_up(queue, Request.add(request, pieces))
      _closed -> queue
    end
  end

  @doc """
  Takes the next piece for the model, if it has a place for one. From now on the model has it, as `id`.
  """
  @spec take(t, pos_integer) :: {Request.t(), Request.piece(), t} | :none
  def take(%__MODULE__{ready: true, suspects: [{ref, piece} | rest], running: running} = queue, id)
      when running == %{} do
    queue = %{queue | suspects: rest}

    case queue.requests do
      %{^ref => request} ->
        request = run(request, id, piece)
        queue = %{queue | running: %{id => ref}, alone: id}
        {request, piece, put(queue, request)}

      _closed ->
        take(queue, id)
    end
  end

  def take(%__MODULE__{suspects: [_ | _]}, _id), do: :none
  def take(%__MODULE__{alone: alone}, _id) when alone != nil, do: :none

  def take(%__MODULE__{ready: true, running: running, max_batch: max_batch} = queue, id)
      when map_size(running) < max_batch do
    with {ref, turns} <- Turns.take(queue.turns) do
      request = Map.fetch!(queue.requests, ref)
      {{:value, piece}, pieces} = :queue.out(request.pieces)
      waiting = if request.started, do: queue.waiting, else: queue.waiting - 1
      queue = %{queue | turns: turns, waiting: waiting, running: Map.put(running, id, ref)}

      request = run(%{request | pieces: pieces, place: nil, started: true}, id, piece)

      {request, piece, line_up(queue, request)}
    end
  end

  def take(%__MODULE__{}, _id), do: :none

  defp run(request, id, piece) do
    running = %{piece: piece, made: 0, told: piece[:skip] || 0}
    %{request | running: Map.put(request.running, id, running)}
  end

  @doc """
  The open request of a piece that the model has, and the piece's number.
  """
  @spec find(t, pos_integer) :: {Request.t(), non_neg_integer} | :none
  def find(%__MODULE__{} = queue, id) do
    with %{^id => ref} <- queue.running,
         %{^ref => %{running: %{^id => %{piece: piece}}} = request} <- queue.requests do
      {request, piece.number}
    else
      _let_go_or_closed -> :none
    end
  end

  @doc """
  The model has made `bytes` more of a streamed piece. Returns how many of them the caller already has.
  """
  @spec made(t, pos_integer, non_neg_integer) :: {non_neg_integer, t}
  def made(%__MODULE__{} = queue, id, bytes) do
    with %{^id => ref} <- queue.running,
         %{^ref => %{running: %{^id => running}} = request} <- queue.requests do
      had = (running.told - running.made) |> max(0) |> min(bytes)
      made = running.made + bytes
      running = %{running | made: made, told: max(running.told, made)}
      {had, put(queue, %{request | heard: true, running: %{request.running | id => running}})}
    else
      _let_go_or_closed -> {0, queue}
    end
  end

  @doc """
  The model has let go of a piece.
  """
  @spec let_go(t, pos_integer) :: t
  def let_go(%__MODULE__{} = queue, id) do
    found = find(queue, id)
    alone = if queue.alone == id, do: nil, else: queue.alone
    queue = %{queue | running: Map.delete(queue.running, id), alone: alone}

    case found do
      {request, _number} -> line_up(queue, %{request | running: Map.delete(request.running, id)})
      :none -> queue
    end
  end

  @doc """
  Closes a request. What the model has of it is in its `running`.
  """
  @spec close(t, reference) :: {Request.t(), t} | :none
  def close(%__MODULE__{} = queue, ref) do
    case Map.pop(queue.requests, ref) do
      {nil, _requests} ->
        :none

      {request, requests} ->
        turns = if request.place, do: Turns.delete(queue.turns, request.place), else: queue.turns
        waiting = if request.started, do: queue.waiting, else: queue.waiting - 1
        {request, %{queue | requests: requests, turns: turns, waiting: waiting}}
    end
  end

  # Stores a request, and gives it a place in the line if it may have a turn and has none.
  defp line_up(queue, request) do
    if is_nil(request.place) and Request.ready?(request, queue.parallel) do
      {place, turns} = Turns.add(queue.turns, request.ref, request.priority)
      put(%{queue | turns: turns}, %{request | place: place})
    else
      put(queue, request)
    end
  end

  defp put(queue, request), do: %{queue | requests: Map.put(queue.requests, request.ref, request)}
end
