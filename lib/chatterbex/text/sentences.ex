defmodule Chatterbex.Text.Sentences do
  @moduledoc false
  # Finds words and the ends of sentences in text that arrives in fragments.
  #
  # One pass over the text, one word at a time. A word that may end a sentence stays `pending` until the text after it
  # decides (`Lookahead`). Undecided text waits in `buffer`, which stays short. The events do not depend on how the text
  # was cut into fragments:
  #
  #   {:atom, text, glue, size, rank}   a word, or one character of a script without spaces. `glue` is the white
  #                                     space before it, `size` its graphemes, `rank` how well the text can be
  #                                     cut before it
  #   {:end, :sentence | :line | :paragraph | :text}
  #   {:pause, milliseconds, :sentence | :pause}   a tag: at the end of a sentence, or elsewhere

  import Chatterbex.Text.Characters

  alias Chatterbex.Error
  alias Chatterbex.Text.{Abbreviations, Boundary, Ending, Heading, Lookahead, Markup, Rank, Word}

  require Rank

  @enforce_keys [:rules, :tags, :max]
  defstruct [
    :rules,
    :tags,
    :max,
    # Undecided text, an incomplete character at its end, and the size of the text before it.
    buffer: "",
    offset: 0,
    # White space before the next word.
    glue: :line,
    dropped: false,
    # The last word: what decides whether a sentence ends after it, its class, whether it ends in a wide character, how
    # well the text can be cut after it, and how it ends.
    pending: nil,
    previous: :start,
    wide?: false,
    after: Rank.word(),
    ending: :none,
    # The sentence so far: whether there is one, and the case of its first letter.
    begun?: false,
    case: nil,
    # The paragraph so far, and its line.
    paragraph: false,
    line: :text
  ]

  @type event ::
          {:atom, String.t(), String.t(), pos_integer, integer}
          | {:end, :sentence | :line | :paragraph | :text}
          | {:pause, non_neg_integer, :sentence | :pause}

  @type t :: %__MODULE__{rules: Abbreviations.rules(), tags: Markup.t(), max: pos_integer}

  @doc """
  `max` is the number of graphemes that a word may have before it is cut.
  """
  @spec new(Abbreviations.rules(), Markup.t(), pos_integer) :: t
  def new(rules, tags, max), do: %__MODULE__{rules: rules, tags: tags, max: max}

  @doc """
  Adds a fragment, which may end inside a character. An error is returned with the events before it.
  """
  @spec push(t, binary) :: {:ok, [event], t} | {:error, [event], Error.t()}
  def push(%__MODULE__{} = state, fragment) do
    text = state.buffer <> fragment

    if String.valid?(text) do
      scan(state, text, "", false)
    else
      case :unicode.characters_to_binary(text) do
        {:incomplete, valid, tail} -> scan(state, valid, tail, false)
        {:error, valid, _rest} -> invalid(state, valid)
      end
    end
  end

  @doc """
  Ends the text.
  """
  @spec finish(t) :: {:ok, [event]} | {:error, [event], Error.t()}
  def finish(%__MODULE__{buffer: buffer} = state) do
    case :unicode.characters_to_binary(buffer) do
      {:incomplete, valid, _tail} ->
        invalid(state, valid)

      ^buffer ->
        with {:ok, events, _state} <- scan(state, buffer, "", true), do: {:ok, events ++ [{:end, :text}]}
    end
  end

  defp invalid(state, valid) do
    at = state.offset + byte_size(valid)

    with {:ok, events, _state} <- scan(state, valid, "", false) do
      {:error, events,
       Error.new(
         :invalid_text,
         "the text is not valid UTF-8: byte #{at} does not belong to any character. " <>
           "Convert it with :unicode.characters_to_binary(text, :latin1) if it is Latin-1.",
         %{byte: at}
       )}
    end
  end

  defp scan(state, text, tail, last?) do
    case loop(text, state.glue, state, last?, []) do
      {:error, events, error} ->
        {:error, Enum.reverse(events), error}

      {rest, glue, state, events} ->
        offset = state.offset + byte_size(text) - byte_size(rest)
        {:ok, Enum.reverse(events), %{state | buffer: rest <> tail, glue: glue, offset: offset}}
    end
  end

  # White space.

  defp loop("", glue, state, _last?, events), do: {"", glue, state, events}

  # The fast path: most words consist only of letters and follow such a word.
  defp loop(
         <<?\s, rest::binary>>,
         :none,
         %{previous: :word, after: Rank.word(), pending: nil, ending: :none, wide?: false, dropped: false} =
           state,
         last?,
         events
       )
       when is_atom(state.line) and state.case != nil,
       do: plain(rest, rest, 0, 0, 0, ?\s, state, last?, events)

  defp loop(
         <<c::utf8, _rest::binary>> = text,
         :none,
         %{previous: class, after: Rank.plain(), pending: nil, ending: :none, wide?: true, dropped: false} =
           state,
         last?,
         events
       )
       when is_unspaced(c) and is_atom(state.line) and state.case != nil,
       do: unspaced(text, text, 0, class, state, last?, events)

  defp loop(<<?\s, rest::binary>>, glue, state, last?, events),
    do: loop(rest, space(glue), state, last?, events)

  defp loop("\r", glue, state, false, events), do: {"\r", glue, state, events}

  defp loop(<<"\r\n", rest::binary>>, glue, state, last?, events),
    do: newline(rest, glue, state, last?, events)

  # Chinese and Japanese paragraphs start with a wide space.
  defp loop(<<0x3000::utf8, rest::binary>>, :line, %{paragraph: true} = state, last?, events),
    do: loop(rest, :indented, paragraph(state), last?, [{:end, :paragraph} | events])

  defp loop(<<c::utf8, rest::binary>>, glue, state, last?, events) when is_space(c),
    do: loop(rest, space(glue), state, last?, events)

  defp loop(<<0x2029::utf8, rest::binary>>, _glue, state, last?, events),
    do: newline(rest, :line, state, last?, events)

  defp loop(<<c::utf8, rest::binary>>, glue, state, last?, events) when is_newline(c),
    do: newline(rest, glue, state, last?, events)

  defp loop(<<c::utf8, rest::binary>>, glue, state, last?, events) when is_binding_space(c) do
    glue = if glue == :none, do: {:binding, <<c::utf8>>}, else: space(glue)
    loop(rest, glue, state, last?, events)
  end

  defp loop(text, glue, state, last?, events) when glue == :line or glue == :indented,
    do: line(text, glue, state, last?, events)

  defp loop(text, glue, state, last?, events), do: visible(text, glue, state, last?, events)

  defp space(:line), do: :indented
  defp space(:indented), do: :indented
  defp space(_glue), do: :space

  defp newline(rest, glue, state, last?, events) do
    if glue in [:line, :indented] and state.paragraph do
      loop(rest, :line, paragraph(state), last?, [{:end, :paragraph} | events])
    else
      loop(rest, :line, state, last?, events)
    end
  end

  defp sentence(state), do: %{state | pending: nil, previous: :start, begun?: false, case: nil, ending: :none}
  defp paragraph(state), do: %{sentence(state) | paragraph: false, line: :text}

  # The beginning of a line.

  defp line(text, glue, state, last?, events) do
    # "12." starts a list item if the line before it is complete; otherwise it ends a wrapped sentence.
    complete? =
      not state.paragraph or state.ending not in [:none, :comma] or state.line in [:item, :heading, :rule]

    with kind when kind != :more <- Lookahead.line(text, complete?, last?),
         ends when ends != :more <- line_ends(text, glue, kind, state, last?) do
      glue = joint(text, state)

      {state, events} =
        case ends do
          false -> {state, events}
          :line -> {%{sentence(state) | line: :text}, [{:end, :line} | events]}
          :paragraph -> {paragraph(state), [{:end, :paragraph} | events]}
        end

      visible(text, glue, %{state | line: kind_of_line(kind, state)}, last?, events)
    else
      :more -> {text, glue, state, events}
    end
  end

  # Only the first line of a paragraph may be a title; the second line of an item belongs to it.
  defp kind_of_line(:text, %{paragraph: false}), do: {:title, [], 0}
  defp kind_of_line(:text, %{line: :item}), do: :item
  defp kind_of_line(kind, _state), do: kind

  # Whether the line before this one always ends a sentence.
  defp line_ends(_text, _glue, _kind, %{paragraph: false}, _last?), do: false
  defp line_ends(_text, _glue, _kind, %{line: :rule}, _last?), do: :paragraph
  defp line_ends(_text, _glue, :text, %{line: :heading}, _last?), do: :line

  defp line_ends(text, :line, :text, %{line: :item} = state, last?),
    do: unless_lower(text, state, last?, [:lower, :punctuation])

  defp line_ends(text, _glue, :text, %{line: {:title, words, _size}, ending: :none} = state, last?) do
    if Heading.heading?(Enum.reverse(words)),
      do: unless_lower(text, state, last?, [:lower, :punctuation]),
      else: false
  end

  defp line_ends(_text, _glue, :text, _state, _last?), do: false
  defp line_ends(_text, _glue, _kind, _state, _last?), do: :line

  defp unless_lower(text, state, last?, kinds) do
    case Lookahead.next(text, state.tags, last?) do
      :more -> :more
      {:letter, kind, _text} -> if(kind in kinds, do: false, else: :line)
      :absorb -> false
      kind -> if(kind in kinds, do: false, else: :line)
    end
  end

  # A wrapped line continues after a space, or without one between characters of a script without spaces.
  defp joint(<<c::utf8, _rest::binary>>, state) do
    if state.wide? and wide?(c), do: :none, else: :space
  end

  defp wide?(c), do: is_unspaced(c) or c in 0x3001..0x303F or c in 0xFF01..0xFF64

  # A visible character.

  defp visible(<<?[, _rest::binary>> = text, glue, state, last?, events) do
    case Markup.read(text, state.tags, last?) do
      :text -> question(text, glue, state, last?, events)
      :more -> {text, glue, state, events}
      {:error, error} -> {:error, events, error}
      {:drop, rest} -> loop(rest, glue, %{state | dropped: true}, last?, events)
      {:pause, milliseconds, rest} -> pause(rest, milliseconds, state, last?, events)
      {kind, tag, rest} -> sound(text, kind, tag, rest, glue, state, last?, events)
    end
  end

  defp visible(text, glue, state, last?, events), do: question(text, glue, state, last?, events)

  defp pause(rest, milliseconds, %{pending: nil} = state, last?, events) do
    state = %{state | previous: :start, line: if(state.line == :item, do: :item, else: :text)}
    loop(rest, :space, state, last?, [{:pause, milliseconds, :pause} | events])
  end

  defp pause(rest, milliseconds, state, last?, events),
    do: loop(rest, :space, sentence(state), last?, [{:pause, milliseconds, :sentence} | events])

  defp sound(text, kind, tag, rest, glue, state, last?, events) do
    # A mark on the bracket belongs to it.
    with size when is_integer(size) <- Word.marks(rest, ?], state.max, last?),
         answer when answer != :more <- Boundary.answer(text, glue, state, last?) do
      <<marks::binary-size(size), rest::binary>> = rest
      {state, events} = settle(answer, state, events)
      state = %{state | line: untitled(state.line)}
      tag = tag <> marks
      {state, events} = put(state, events, tag, glue, String.length(tag), kind, false, :none)
      loop(rest, :none, state, last?, events)
    else
      :more -> {text, glue, state, events}
      :endless -> {:error, events, endless(state)}
    end
  end

  defp untitled({:title, _words, _size}), do: :text
  defp untitled(line), do: line

  defp question(text, glue, %{pending: nil} = state, last?, events),
    do: word(text, glue, state, last?, events)

  defp question(text, glue, state, last?, events) do
    case Boundary.answer(text, glue, state, last?) do
      :more ->
        {text, glue, state, events}

      answer ->
        {state, events} = settle(answer, state, events)
        word(text, glue, state, last?, events)
    end
  end

  defp settle(answer, state, events) when answer in [:none, :absorb], do: {state, events}
  defp settle(true, state, events), do: {sentence(state), [{:end, :sentence} | events]}

  # Not the end: often still a good place to cut, but a bad one after "Dr.".
  defp settle(false, %{pending: {kind, _closed?}} = state, events) do
    {%{state | pending: nil, after: if(kind in [:hard, :normal], do: Rank.clause(), else: Rank.weak())},
     events}
  end

  # Words.

  defp word(<<c::utf8, rest::binary>> = text, glue, state, last?, events) when is_unspaced(c) do
    case Word.marks(rest, c, state.max, last?) do
      :more ->
        {text, glue, state, events}

      :endless ->
        {:error, events, endless(state)}

      marks ->
        size = byte_size(text) - byte_size(rest) + marks
        <<word::binary-size(size), rest::binary>> = text
        {state, events} = put(state, events, word, glue, 1, Word.script(c), true, :none)
        loop(rest, :none, state, last?, events)
    end
  end

  defp word(text, glue, state, last?, events) do
    case Word.take(text, state.max, state.tags, last?) do
      :more ->
        {text, glue, state, events}

      :endless ->
        {:error, events, endless(state)}

      {:part, size, graphemes} ->
        part(text, size, graphemes, glue, state, last?, events)

      {:word, size, graphemes, last, stop} ->
        whole(text, size, graphemes, last, stop, glue, state, last?, events)
    end
  end

  defp whole(text, size, graphemes, last, stop, glue, state, last?, events) do
    <<word::binary-size(size), rest::binary>> = text
    class = Word.class(word, glue != :none, stop)
    ending = Ending.of(word, last, stop, state)
    {state, events} = put(state, events, word, glue, graphemes, class, wide?(last), ending)
    loop(rest, :none, state, last?, events)
  end

  # The first part of a word that is longer than a piece may be.
  defp part(text, size, graphemes, glue, state, last?, events) do
    <<part::binary-size(size), rest::binary>> = text
    {state, events} = put(%{state | pending: nil}, events, part, glue, graphemes, :word, false, :none)
    loop(rest, :none, %{state | after: Rank.forced()}, last?, events)
  end

  defp endless(state) do
    Error.new(
      :invalid_text,
      "the text has a character that is never done, at byte #{state.offset} or after it: " <>
        "a letter with endless marks on it cannot be spoken"
    )
  end

  # Words of letters, each of which is a grapheme, with single spaces between them. Other words take the slow path.
  defp plain(<<c, rest::binary>>, text, at, size, count, _previous, state, last?, events)
       when c in ?a..?z or c in ?A..?Z or c in ?0..?9 or ((c == ?- or c == ?') and count > 0),
       do: plain(rest, text, at, size + 1, count + 1, c, state, last?, events)

  defp plain(<<?\s, rest::binary>>, text, at, size, count, previous, state, last?, events)
       when is_plain_letter(previous) and count <= state.max do
    atom = {:atom, binary_part(text, at, size), " ", count, Rank.word()}
    plain(rest, text, at + size + 1, 0, 0, ?\s, state, last?, [atom | events])
  end

  defp plain(<<c::utf8, rest::binary>>, text, at, size, count, _previous, state, last?, events)
       when is_plain_letter(c) and is_simple(c),
       do: plain(rest, text, at, size + byte_size(<<c::utf8>>), count + 1, c, state, last?, events)

  defp plain(_rest, text, at, size, _count, _previous, state, last?, events) do
    <<_done::binary-size(at), rest::binary>> = text

    if size == 0,
      do: loop(rest, :space, state, last?, events),
      else: visible(rest, :space, state, last?, events)
  end

  # Characters of a script without spaces, each followed by one without marks.
  defp unspaced(<<c::utf8, d::utf8, _rest::binary>> = text, whole, at, previous, state, last?, events)
       when is_unspaced(c) and (is_unspaced(d) or d in 0x3001..0x3029) and (d < 0xFF9E or d > 0xFF9F) do
    <<_c::utf8, rest::binary>> = text
    size = byte_size(<<c::utf8>>)
    class = Word.script(c)
    atom = {:atom, binary_part(whole, at, size), "", 1, Rank.before(previous, Rank.plain(), :none, class)}
    unspaced(rest, whole, at + size, class, state, last?, [atom | events])
  end

  defp unspaced(text, _whole, _at, previous, state, last?, events),
    do: visible(text, :none, %{state | previous: previous}, last?, events)

  # Emits a word with the white space before it.
  defp put(state, events, text, glue, size, class, wide?, ending) do
    glue = mend(state, glue, class, text)
    atom = {:atom, text, white(glue), size, Rank.before(state.previous, state.after, glue, class)}
    {ending, pending, rank} = ended(ending, state.pending, class)

    state = %{
      state
      | previous: class,
        wide?: wide?,
        pending: pending,
        after: rank,
        ending: ending,
        dropped: false,
        begun?: true,
        case: state.case || first_case(class, text),
        paragraph: true,
        line: titled(state.line, text, size)
    }

    {state, [atom | events]}
  end

  # The lower-case letters of a tag say nothing about the text.
  defp first_case(class, _text) when class in [:sound, :style], do: nil
  defp first_case(_class, text), do: Word.first_case(text)

  defp ended(:none, nil, class) when class in [:han, :hiragana, :katakana], do: {:none, nil, Rank.plain()}
  defp ended(:none, nil, _class), do: {:none, nil, Rank.word()}
  # Closing marks after a possible end.
  defp ended(:none, {kind, _closed?} = pending, _class), do: {kind, pending, Rank.word()}
  defp ended(:comma, _pending, _class), do: {:comma, nil, Rank.comma()}
  defp ended(:clause, _pending, _class), do: {:clause, nil, Rank.clause()}
  defp ended({kind, _closed?} = pending, _pending, _class), do: {kind, pending, Rank.word()}

  # When a sound is dropped, the words around it stay separate, and punctuation stays with its word.
  defp mend(%{dropped: true} = state, glue, class, text) do
    cond do
      state.begun? and Word.closing?(text) -> :none
      glue == :none and class not in [:han, :hiragana, :katakana] -> :space
      true -> glue
    end
  end

  defp mend(%{begun?: true}, glue, _class, text) when glue != :none,
    do: if(Boundary.marked_space?(text, glue), do: {:marked, white(glue)}, else: glue)

  defp mend(_state, glue, _class, _text), do: glue

  defp white(:none), do: ""
  defp white(:space), do: " "
  defp white({_binding_or_marked, white}), do: white

  defp titled({:title, words, count}, text, size) do
    if count + size < Heading.longest(), do: {:title, [text | words], count + size + 1}, else: :text
  end

  defp titled(line, _text, _size), do: line
end
