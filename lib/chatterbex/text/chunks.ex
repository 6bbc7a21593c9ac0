defmodule Chatterbex.Text.Chunks do
  @moduledoc false
  # Groups words and sentences into chunks.
  #
  # `sentences` are complete ones that will be spoken together, `words` those of the current sentence, last first.
  # Together they are never longer than `max`.

  alias Chatterbex.Text.{Chunk, Rank, Sentences}

  require Rank

  @enforce_keys [:max, :sentence_pause, :paragraph_pause, :group]
  defstruct [:max, :sentence_pause, :paragraph_pause, :group, sentences: [], waiting: 0, words: [], size: 0]

  @type t :: %__MODULE__{
          max: pos_integer,
          sentence_pause: non_neg_integer,
          paragraph_pause: non_neg_integer,
          group: boolean
        }

  @doc """
  Processes events and returns the chunks that they complete.
  """
  @spec add(t, [Sentences.event()]) :: {[Chunk.t()], t}
  def add(%__MODULE__{} = state, events), do: events(events, state.words, state.size, [], state)

  defp events([], words, size, chunks, state), do: {Enum.reverse(chunks), %{state | words: words, size: size}}

  defp events([{:atom, text, glue, size, rank} = atom | events], words, total, chunks, state) do
    new = if words == [], do: size, else: total + width(glue) + size

    cond do
      state.sentences != [] and state.waiting + 1 + new > state.max ->
        {chunks, state} = sentences(chunks, state)
        events([atom | events], words, total, chunks, state)

      new > state.max ->
        {chunk, words} = cut(words, total, rank, state.max)
        events([atom | events], words, size(words), [chunk | chunks], state)

      true ->
        events(events, [{text, glue, size, rank} | words], new, chunks, state)
    end
  end

  defp events([event | events], words, size, chunks, state) do
    {chunks, state} = event(event, chunks, %{state | words: words, size: size})
    events(events, state.words, state.size, chunks, state)
  end

  defp event({:end, :sentence}, chunks, %{group: true} = state), do: {chunks, whole(state)}
  defp event({:end, :paragraph}, chunks, state), do: flush(chunks, state, :paragraph, state.paragraph_pause)
  defp event({:end, :text}, chunks, state), do: flush(chunks, state, :paragraph, 0)

  defp event({:end, _sentence_or_line}, chunks, state),
    do: flush(chunks, state, :sentence, state.sentence_pause)

  defp event({:pause, milliseconds, _kind}, chunks, %{sentences: [], words: []} = state),
    do: {[%Chunk{text: "", pause: milliseconds, kind: :pause, speakable: false} | chunks], state}

  defp event({:pause, milliseconds, kind}, chunks, state), do: flush(chunks, state, kind, milliseconds)

  defp width(""), do: 0
  defp width(_space), do: 1

  # The sentence is complete, and waits for others to be spoken with it.
  defp whole(%{words: []} = state), do: state

  defp whole(%{sentences: sentences} = state) do
    joint = if sentences == [], do: "", else: first_glue(state.words)

    %{
      state
      | sentences: [sentences, joint | join(state.words)],
        waiting: state.waiting + width(joint) + state.size,
        words: [],
        size: 0
    }
  end

  # Everything that waits becomes a chunk.
  defp flush(chunks, state, kind, pause) do
    case whole(state) do
      %{sentences: []} = state -> {chunks, state}
      state -> {[chunk(state.sentences, kind, pause) | chunks], %{state | sentences: [], waiting: 0}}
    end
  end

  # The complete sentences become a chunk, the current sentence does not yet.
  defp sentences(chunks, state) do
    {[chunk(state.sentences, :sentence, state.sentence_pause) | chunks], %{state | sentences: [], waiting: 0}}
  end

  defp first_glue(words) do
    {_text, glue, _size, _rank} = List.last(words)
    glue
  end

  # Words, last first, as iodata. The white space before the first one is left out.
  defp join(words), do: join(words, [])
  defp join([{text, _glue, _size, _rank}], joined), do: [text | joined]
  defp join([{text, glue, _size, _rank} | words], joined), do: join(words, [glue, text | joined])

  # Cuts the current sentence at the best place. `rank` is that of the place after its last word.
  defp cut(words, total, rank, max) do
    {count, place} = place(words, total, rank, max)
    {rest, cut} = Enum.split(words, count)

    kind =
      cond do
        place >= Rank.comma() -> :clause
        place >= Rank.weak() -> :word
        true -> :grapheme
      end

    {chunk(join(cut), kind, 0), rest}
  end

  # The longest beginning that ends well. A place that is good but early gives a short piece and helps little, so
  # each kind of place counts only from some length on, as long as there are others.
  defp place(words, total, rank, max) do
    best = places(words, rank, total, 0, %{})

    Enum.find_value(
      [
        {Rank.clause(), div(max, 2)},
        {Rank.comma(), div(max, 3)},
        {Rank.word(), div(max, 4)},
        {Rank.weak(), div(max, 2)},
        {Rank.plain(), div(max, 4)},
        {Rank.clause(), 0},
        {Rank.comma(), 0},
        {Rank.word(), 0},
        {Rank.weak(), 0},
        {Rank.plain(), 0},
        {Rank.inside(), 0},
        {Rank.forced(), 0}
      ],
      fn {rank, least} ->
        case best do
          %{^rank => {count, size}} when size >= least -> {count, rank}
          _other -> nil
        end
      end
    )
  end

  # For each rank the last place with it: the number of words after it, and the length before it.
  defp places([], _rank, _size, _count, best), do: best

  defp places([{_text, glue, size, before} | words], rank, total, count, best) do
    places(words, before, total - size - width(glue), count + 1, Map.put_new(best, rank, {count, total}))
  end

  defp size([]), do: 0

  defp size(words) do
    {_text, glue, _size, _rank} = List.last(words)
    Enum.reduce(words, -width(glue), fn {_text, glue, size, _rank}, total -> total + size + width(glue) end)
  end

  defp chunk(iodata, kind, pause) do
    # A copy, so that it does not keep the original text in memory.
    text = iodata |> IO.iodata_to_binary() |> :binary.copy()
    %Chunk{text: text, kind: kind, pause: pause, speakable: text =~ ~r/[\p{L}\p{N}]/u}
  end
end
