defmodule Chatterbex.Speech.AudioStream do
  @moduledoc false
  # Speech as a lazy Enumerable of chunks.
  #
  # The consuming process cuts the text, requests its pieces and returns their audio. Only the source of the text is
  # pulled in another process, one fragment at a time: see Chatterbex.Speech.TextSource. At most `ahead` pieces are
  # requested, counted from the current one, so a slow consumer makes the source wait too.

  alias Chatterbex.{Audio, Client, Error, Telemetry, Text.Splitter, Text.Validation}
  alias Chatterbex.Speech.{Piece, Plan, TextSource}

  defstruct [
    :plan,
    :ref,
    :stop,
    # A reference that no message has, in place of a missing source or request.
    :none,
    :source,
    :splitter,
    :ahead,
    :progress,
    :done,
    :span,
    :error,
    # The exception that was raised, until `close/1` gets this state.
    :failure,
    # When the wait for the next chunk began, in monotonic milliseconds.
    :since,
    # Chunks of the text that were not requested yet, and pieces that are awaited.
    ripe: [],
    window: :queue.new(),
    outstanding: 0,
    numbered: 0,
    chunks: 0,
    first_audio: nil,
    ended: false
  ]

  @typedoc """
  The parts of a stream: its text, its checked options, and `plan`, which is called for the first chunk. `server` and
  `measurements` are for telemetry.
  """
  @type request :: %{
          text: Enumerable.t() | String.t(),
          options: map,
          server: GenServer.server(),
          measurements: map,
          plan: (... -> {:ok, Plan.t()} | {:error, Error.t()})
        }

  @typedoc """
  What ends the consuming process while it waits, and its exit reason then: the end of the process that
  `listener` monitors, with `{:shutdown, :listener_gone}`; an exit of `supervisor`, which it traps, with
  `{:shutdown, :stopping}`; and the message `{cancel, :cancel}`, with `{:shutdown, :cancelled}`.
  """
  @type stop :: %{listener: reference, supervisor: pid, cancel: reference}

  @doc """
  The stream of a request.
  """
  @spec new(request, stop | nil) :: Enumerable.t()
  def new(request, stop \\ nil) do
    Stream.resource(fn -> begin(request, stop) end, &step/1, &close/1)
  end

  defp begin(request, stop) do
    span = Telemetry.start([:chatterbex, :stream], request.measurements, %{server: request.server})

    case Telemetry.guard(span, fn -> open(request, stop) end) do
      {:ok, state} ->
        %{state | span: span}

      {:error, error} ->
        Telemetry.stop(span, %{chunks: 0, audio_seconds: 0.0}, %{error: error, halted: false})
        raise error
    end
  end

  defp open(%{options: options} = request, stop) do
    with {:ok, text, total} <- source(request.text), {:ok, plan} <- request.plan.() do
      state = %__MODULE__{
        plan: plan,
        stop: stop,
        none: make_ref(),
        source: TextSource.start(text),
        splitter: Splitter.new(%{plan.text | group: false}),
        ahead: options.ahead || plan.parallel + 1,
        progress: options.progress,
        done: %{characters: 0, total: total, pieces: 0, seconds: 0.0}
      }

      {:ok, state}
    end
  end

  defp source(text) when is_binary(text) do
    with {:ok, text} <- Validation.check(text), do: {:ok, Splitter.slices(text), String.length(text)}
  end

  defp source(text), do: {:ok, Stream.flat_map(text, &slices/1), nil}

  defp slices(fragment) when is_binary(fragment), do: Splitter.slices(fragment)
  defp slices(other), do: [other]

  ## The next chunk
  #
  # A step that changed the state returns at once: `close/1` would not see the new state if an exception came later.

  # The failure is kept in the state, so that `close/1` sees it, and is raised in the next step.
  defp step(%{failure: {kind, reason, stacktrace}}), do: :erlang.raise(kind, reason, stacktrace)

  defp step(state) do
    with {:halt, state} <- next(state), do: {:halt, %{state | ended: true}}
  catch
    kind, reason -> {[], %{state | failure: {kind, reason, __STACKTRACE__}}}
  end

  defp next(%{ripe: [_ | _], outstanding: outstanding, ahead: ahead} = state) when outstanding < ahead,
    do: {[], ask(state)}

  defp next(%{source: %{asked: false}, error: nil, outstanding: outstanding, ahead: ahead} = state)
       when outstanding < ahead,
       do: {[], %{state | source: TextSource.ask(state.source)}}

  defp next(state) do
    case :queue.peek(state.window) do
      {:value, %Piece{number: nil} = silence} -> silent(silence, dropped(state))
      {:value, %Piece{}} when state.since == nil -> {[], %{state | since: now()}}
      {:value, piece} -> wait(piece, state)
      # Everything that was requested before the source failed has been returned.
      :empty when state.error != nil -> failure(state.error)
      :empty when state.source == nil -> {:halt, state}
      :empty -> wait(nil, state)
    end
  end

  defp failure(%Error{} = error), do: raise(error)
  defp failure({kind, reason, stacktrace}), do: :erlang.raise(kind, reason, stacktrace)

  # Waits for audio of this piece, if there is one, or for text.
  defp wait(piece, state) do
    %{plan: plan, none: none} = state
    number = piece && piece.number
    ref = state.ref || none
    source = if state.source, do: state.source.ref, else: none
    stop = state.stop || %{listener: none, supervisor: none, cancel: none}
    %{listener: listener, supervisor: supervisor, cancel: cancel} = stop

    receive do
      {^ref, {:error, error}} -> raise error
      {^ref, {kind, ^number, audio}} -> taken(kind, audio, piece, %{state | since: nil})
      {:DOWN, ^ref, :process, _server, reason} -> raise Client.ended(plan.server, reason)
      {^source, message} -> {[], text(message, state)}
      {:DOWN, ^source, :process, _puller, reason} -> {[], text({:failed, :exit, reason, []}, state)}
      {:DOWN, ^listener, :process, _pid, _reason} -> exit({:shutdown, :listener_gone})
      {:EXIT, ^supervisor, _reason} -> exit({:shutdown, :stopping})
      {^cancel, :cancel} -> exit({:shutdown, :cancelled})
    after
      patience(state) -> {[], overdue(state)}
    end
  end

  defp patience(%{plan: plan, since: since}) do
    with {:ok, left} <- Plan.left(plan.deadline) do
      if since == nil or plan.timeout == :infinity,
        do: left,
        else: min(left, max(since + plan.timeout - now(), 0))
    else
      {:error, error} -> raise error
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp taken(:chunk, audio, piece, state), do: give(audio, %{piece: piece.number, text: piece.text}, state)

  defp taken(:done, _empty, piece, state) do
    state = dropped(%{state | outstanding: state.outstanding - 1}) |> report(piece)
    silent(piece, state)
  end

  defp silent(%Piece{pause: 0}, state), do: {[], state}

  defp silent(%Piece{pause: pause} = piece, state) do
    rate = state.plan.model.sample_rate
    audio = %Audio{samples: Piece.silence(pause, rate), sample_rate: rate}
    give(audio, %{piece: piece.number, pause: pause, model: state.plan.model.name}, state)
  end

  defp give(audio, more, state) do
    audio = %{audio | metadata: Map.merge(audio.metadata, more)}
    seconds = Audio.duration(audio)
    since_start = System.monotonic_time() - state.span.started

    Telemetry.execute(
      [:chatterbex, :stream, :chunk],
      %{number: state.chunks, audio_seconds: seconds, since_start: since_start},
      Map.put(state.span.metadata, :model, state.plan.model.name)
    )

    done = %{state.done | seconds: state.done.seconds + seconds}
    {[audio], %{state | chunks: state.chunks + 1, done: done, first_audio: state.first_audio || since_start}}
  end

  defp report(state, piece) do
    done = Piece.progress(state.done, piece, 0.0)
    if state.progress, do: state.progress.(done)
    %{state | done: done}
  end

  defp dropped(state), do: %{state | window: :queue.drop(state.window)}

  # The time may not be up yet: a timer has a maximum of its own.
  defp overdue(%{plan: plan, since: since} = state) do
    with {:error, error} <- Plan.left(plan.deadline), do: raise(error)
    if since != nil and now() - since >= plan.timeout, do: raise(stalled(state)), else: state
  end

  defp stalled(state) do
    Error.new(
      :timeout,
      "no audio within #{state.plan.timeout} ms after #{state.chunks} chunks. Raise :timeout.",
      %{chunks: state.chunks}
    )
  end

  ## The next fragment of the text

  defp text({:fragment, fragment}, state),
    do: push(fragment, %{state | source: %{state.source | asked: false}})

  defp text(:done, state), do: state |> closed() |> finish()

  defp text({:failed, kind, reason, stacktrace}, state),
    do: %{closed(state) | error: {kind, reason, stacktrace}}

  defp closed(state) do
    TextSource.close(state.source)
    %{state | source: nil}
  end

  defp push(fragment, state) when is_binary(fragment) do
    case Splitter.push(state.splitter, fragment) do
      {:ok, chunks, splitter} -> %{state | splitter: splitter, ripe: chunks}
      {:error, chunks, error} -> %{state | error: error, ripe: chunks}
    end
  end

  defp push(other, state) do
    message = "the parts of a text must be strings, got #{Chatterbex.Options.Schema.show(other)}"
    %{state | error: Error.new(:invalid_text, message)}
  end

  defp finish(state) do
    case Splitter.finish(state.splitter) do
      {:ok, chunks} -> %{state | ripe: chunks}
      {:error, chunks, error} -> %{state | error: error, ripe: chunks}
    end
  end

  defp ask(%{ripe: [chunk | ripe]} = state) do
    [piece] = Piece.number([chunk], state.numbered)

    case checked(piece, state.plan.model) do
      {:ok, piece} -> ask_for(piece, %{state | ripe: ripe})
      {:error, error} -> failed(state, error)
    end
  end

  # An error in the rest of the text comes after this one.
  defp failed(state, error), do: %{state | error: error, ripe: []}

  defp checked(%Piece{number: nil} = piece, _model), do: {:ok, piece}

  defp checked(piece, model) do
    with {:ok, text} <- Validation.check(piece.text),
         {:ok, text} <- Validation.readable(text, model),
         do: {:ok, %{piece | text: text}}
  end

  defp ask_for(%Piece{number: nil} = piece, state),
    do: %{state | window: :queue.in(piece, state.window)}

  defp ask_for(piece, state) do
    case submit([Piece.command(piece, true, state.plan.model)], state) do
      {:ok, ref} ->
        %{
          state
          | ref: ref,
            window: :queue.in(piece, state.window),
            numbered: state.numbered + 1,
            outstanding: state.outstanding + 1
        }

      {:error, error} ->
        failed(state, error)
    end
  end

  # The server's timer is not used: a stream may take as long as its consumer wants.
  defp submit(pieces, %{ref: nil} = state) do
    settings = %{
      timeout: :infinity,
      deadline: nil,
      priority: state.plan.priority,
      resume: state.plan.resume,
      options: state.plan.options
    }

    Client.open(state.plan.server, settings, pieces)
  end

  defp submit(pieces, state) do
    :ok = Client.more(state.plan.server, state.ref, pieces)
    {:ok, state.ref}
  end

  defp close(state) do
    if state.ref, do: Client.release(state.plan.server, state.ref)
    tell_end(state.failure, state)
    if state.source, do: TextSource.close(state.source)
    :ok
  end

  # An error of the library is a result. The end of a sender, or a consumer that stops, is not a failure.
  defp tell_end(nil, state), do: stopped(state, nil, not state.ended)
  defp tell_end({:error, %Error{} = error, _stacktrace}, state), do: stopped(state, error, false)
  defp tell_end({:exit, {:shutdown, _why}, _stacktrace}, state), do: stopped(state, nil, true)

  defp tell_end({kind, reason, stacktrace}, state),
    do: Telemetry.exception(state.span, measured(state), kind, reason, stacktrace)

  defp stopped(state, error, halted) do
    metadata = %{model: state.plan.model.name, error: error, halted: halted}
    Telemetry.stop(state.span, measured(state), metadata)
  end

  defp measured(state) do
    first = if state.first_audio, do: %{first_audio: state.first_audio}, else: %{}
    Map.merge(first, %{chunks: state.chunks, audio_seconds: state.done.seconds})
  end
end
