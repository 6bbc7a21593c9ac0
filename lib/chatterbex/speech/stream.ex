defmodule Chatterbex.Speech.Stream do
  @moduledoc false
  # Speech as a lazy Enumerable of chunks.
  #
  # All happens in the process that enumerates: the source of the text is pulled one fragment at a time, and
  # between two fragments it is seen whether there is audio. No more pieces are asked for than `ahead`, counted
  # from the one that is being taken, so that who takes slowly makes the source wait too.

  alias Chatterbex.{Audio, Client, Error, Telemetry, Text.Check, Text.Splitter}
  alias Chatterbex.Speech.{Piece, Plan}

  defstruct [
    :plan,
    :ref,
    :stop,
    :source,
    :splitter,
    :ahead,
    :progress,
    :told,
    :started,
    :error,
    # Chunks of the text that nothing was asked for yet, and pieces that are awaited.
    ripe: [],
    window: :queue.new(),
    outstanding: 0,
    numbered: 0,
    chunks: 0
  ]

  @doc """
  `begin` runs when the stream is first asked for a chunk, and gives the plan; `options` are checked. `stop` is
  a monitor whose end ends the process.
  """
  @spec new((() -> {:ok, Plan.t()} | {:error, Error.t()}), Enumerable.t() | String.t(), map, reference | nil) ::
          Enumerable.t()
  def new(begin, text, options, stop \\ nil) do
    Stream.resource(fn -> open(begin, text, options, stop) end, &next/1, &close/1)
  end

  defp open(begin, text, options, stop) do
    with {:ok, text, total} <- source(text), {:ok, plan} <- begin.() do
      %__MODULE__{
        plan: plan,
        stop: stop,
        source: text,
        splitter: Splitter.new(%{plan.text | group: false}),
        ahead: options.ahead || plan.parallel + 1,
        progress: options.progress,
        told: %{characters: 0, total: total, pieces: 0, seconds: 0.0},
        started: System.monotonic_time()
      }
    else
      {:error, error} -> raise error
    end
  end

  defp source(text) when is_binary(text) do
    with {:ok, text} <- Check.check(text),
         do: {:ok, suspended(Splitter.slices(text)), String.length(text)}
  end

  defp source(text), do: {:ok, suspended(Stream.flat_map(text, &slices/1)), nil}

  defp slices(fragment) when is_binary(fragment), do: Splitter.slices(fragment)
  defp slices(other), do: [other]

  # An Enumerable as a function that gives one element at a time.
  defp suspended(enumerable),
    do: &Enumerable.reduce(enumerable, &1, fn element, _last -> {:suspend, element} end)

  ## The next chunk
  #
  # What has changed the state returns it at once: were an exception to come after, `close/1` would not know.

  defp next(%{ripe: [_ | _], outstanding: outstanding, ahead: ahead} = state) when outstanding < ahead,
    do: {[], ask(state)}

  defp next(state) do
    case :queue.peek(state.window) do
      :empty -> pull(state)
      {:value, %Piece{number: nil} = silence} -> silent(silence, dropped(state))
      {:value, piece} -> take(piece, state)
    end
  end

  # What was asked for before the source failed has been given.
  defp pull(%{error: error}) when error != nil, do: failure(error)
  defp pull(%{source: nil} = state), do: {:halt, state}
  defp pull(state), do: {[], fragment(state)}

  defp failure(%Error{} = error), do: raise(error)
  defp failure({kind, reason, stacktrace}), do: :erlang.raise(kind, reason, stacktrace)

  defp take(piece, state) do
    if state.source == nil or state.error != nil or state.outstanding >= state.ahead do
      wait(piece, state)
    else
      case Client.next(state.plan.server, state.ref, piece.number, 0, state.stop) do
        :timeout -> pull(state)
        message -> taken(message, piece, state)
      end
    end
  end

  defp wait(piece, state) do
    with {:ok, left} <- Plan.left(state.plan.deadline),
         timeout = min(state.plan.timeout, left),
         message when message != :timeout <-
           Client.next(state.plan.server, state.ref, piece.number, timeout, state.stop) do
      taken(message, piece, state)
    else
      :timeout -> raise stalled(state)
      {:error, error} -> raise error
    end
  end

  defp taken({:chunk, number, audio}, piece, state),
    do: give(audio, %{piece: number, text: piece.text}, state)

  defp taken({:done, _number, _empty}, piece, state) do
    state = dropped(%{state | outstanding: state.outstanding - 1}) |> told(piece)
    silent(piece, state)
  end

  defp taken({:error, error}, _piece, _state), do: raise(error)

  defp silent(%Piece{pause: 0}, state), do: {[], state}

  defp silent(%Piece{pause: pause} = piece, state) do
    rate = state.plan.model.sample_rate
    audio = %Audio{samples: Piece.silence(pause, rate), sample_rate: rate}
    give(audio, %{piece: piece.number, pause: pause, model: state.plan.model.name}, state)
  end

  defp give(audio, more, state) do
    audio = %{audio | metadata: Map.merge(audio.metadata, more)}
    seconds = Audio.duration(audio)

    Telemetry.execute(
      [:chatterbex, :stream, :chunk],
      %{number: state.chunks, audio_seconds: seconds, since_start: System.monotonic_time() - state.started},
      %{server: state.plan.server, model: state.plan.model.name}
    )

    told = %{state.told | seconds: state.told.seconds + seconds}
    {[audio], %{state | chunks: state.chunks + 1, told: told}}
  end

  defp told(state, piece) do
    told = Piece.progress(state.told, piece, 0.0)
    if state.progress, do: state.progress.(told)
    %{state | told: told}
  end

  defp dropped(state), do: %{state | window: :queue.drop(state.window)}

  defp stalled(state) do
    Error.new(
      :timeout,
      "no audio within #{state.plan.timeout} ms after #{state.chunks} chunks. Raise :timeout.",
      %{chunks: state.chunks}
    )
  end

  ## The next fragment of the text

  defp fragment(state) do
    case state.source.({:cont, nil}) do
      {:suspended, fragment, source} -> push(fragment, %{state | source: source})
      {_done_or_halted, _last} -> finish(%{state | source: nil})
    end
  catch
    # It has closed what it had open.
    kind, reason -> %{state | source: nil, error: {kind, reason, __STACKTRACE__}}
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

  # An error that the rest of the text has already given comes after this one.
  defp failed(state, error), do: %{state | error: error, ripe: []}

  defp checked(%Piece{number: nil} = piece, _model), do: {:ok, piece}

  defp checked(piece, model) do
    with {:ok, text} <- Check.check(piece.text),
         {:ok, text} <- Check.readable(text, model),
         do: {:ok, %{piece | text: text}}
  end

  defp ask_for(%Piece{number: nil} = piece, state),
    do: %{state | window: :queue.in(piece, state.window)}

  defp ask_for(piece, state) do
    case submit([Piece.command(piece, true)], state) do
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

  # The server's own timer is not used: a stream may take as long as its taker does.
  defp submit(pieces, %{ref: nil} = state) do
    settings = %{timeout: :infinity, priority: state.plan.priority, options: state.plan.options}

    Client.open(state.plan.server, settings, pieces)
  end

  defp submit(pieces, state) do
    :ok = Client.more(state.plan.server, state.ref, pieces)
    {:ok, state.ref}
  end

  defp close(state) do
    if state.ref, do: Client.release(state.plan.server, state.ref)
    # Lets the source close what it has open.
    if state.source, do: state.source.({:halt, nil})
    :ok
  end
end
