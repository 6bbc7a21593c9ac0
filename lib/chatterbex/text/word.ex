defmodule Chatterbex.Text.Word do
  @moduledoc false
  # Where a word ends, and its class.
  #
  # A word is the text between white space, or in scripts without spaces each character with its marks. Marks that end
  # sentences or clauses without white space after them (`。` `،` `।`) also end a word.

  import Chatterbex.Text.Characters

  alias Chatterbex.Text.Markup

  # The number of bytes allowed for each grapheme of a piece: far more than in real text.
  @bytes_per_grapheme 64

  @type class :: :word | :open | :close | :middle | :sound | :style | :han | :hiragana | :katakana | :small
  @type stop :: :white | :direct

  @doc """
  The size in bytes of the word at the beginning of `text`, its graphemes, its last code point and what stops it: white
  space, or another word directly.

  `:part` is the beginning of a word of more than `max` graphemes. `:endless` is a grapheme that is never done.
  """
  @spec take(binary, pos_integer, Markup.t(), boolean) ::
          {:word, pos_integer, pos_integer, char, stop} | {:part, pos_integer, pos_integer} | :more | :endless
  def take(text, max, tags, last?) do
    case span(text, 0, 0, true, ?\s, tags, last?) do
      {size, count, simple?, previous, stop} when count > max ->
        case part(binary_part(text, 0, size), max, simple?) do
          :whole when stop == :more -> :more
          :whole -> {:word, size, graphemes(text, size, count, simple?), previous, stop}
          part -> part
        end

      {_size, _count, _simple?, _previous, :more} ->
        :more

      {size, count, simple?, previous, stop} ->
        {:word, size, graphemes(text, size, count, simple?), previous, stop}
    end
  end

  defp graphemes(_text, _size, count, true), do: count
  defp graphemes(text, size, _count, false), do: text |> binary_part(0, size) |> String.length()

  defp part(word, max, simple?) do
    case part(word, max, max * @bytes_per_grapheme, 0, 0, simple?) do
      {:part, 0, _graphemes} -> :endless
      part -> part
    end
  end

  defp part("", _max, _limit, _bytes, _count, _simple?), do: :whole
  defp part(_word, max, _limit, bytes, max, _simple?), do: {:part, bytes, max}

  defp part(word, max, limit, bytes, count, true) do
    <<c::utf8, rest::binary>> = word
    part(rest, max, limit, bytes + byte_size(<<c::utf8>>), count + 1, true)
  end

  defp part(word, max, limit, bytes, count, false) do
    {grapheme, rest} = String.next_grapheme(word)
    bytes = bytes + byte_size(grapheme)

    if bytes > limit,
      do: {:part, bytes - byte_size(grapheme), count},
      else: part(rest, max, limit, bytes, count + 1, false)
  end

  @doc """
  The number of bytes at the beginning of `text` that are marks of the character before it.
  """
  @spec marks(binary, char, pos_integer, boolean) :: non_neg_integer | :more | :endless
  def marks(text, previous, max, last?), do: marks(text, previous, 0, max * @bytes_per_grapheme, last?)

  defp marks(_text, _previous, size, limit, _last?) when size > limit, do: :endless
  defp marks("", _previous, size, _limit, last?), do: if(last?, do: size, else: :more)

  defp marks(<<c::utf8, rest::binary>>, previous, size, limit, last?) do
    if joined?(previous, c),
      do: marks(rest, c, size + byte_size(<<c::utf8>>), limit, last?),
      else: size
  end

  # The extent of a word: its bytes, its code points, whether each of them is a grapheme, the last one, and what ends
  # it.
  defp span(<<c, rest::binary>>, size, count, simple?, _previous, tags, last?)
       when c > 0x20 and c < 0x7F and c != ?[,
       do: span(rest, size + 1, count + 1, simple?, c, tags, last?)

  defp span("", size, count, simple?, previous, _tags, last?),
    do: {size, count, simple?, previous, if(last?, do: :white, else: :more)}

  defp span(<<c::utf8, _rest::binary>>, size, count, simple?, previous, _tags, _last?)
       when is_white(c) and size > 0,
       do: {size, count, simple?, previous, :white}

  defp span(<<?[, rest::binary>> = text, size, count, simple?, previous, tags, last?) do
    # A character that forms one grapheme with the one before it does not end a word.
    if size == 0 or joined?(previous, ?[) do
      span(rest, size + 1, count + 1, simple?, ?[, tags, last?)
    else
      case Markup.read(text, tags, last?) do
        :more -> {size, count, simple?, previous, :more}
        :text -> span(rest, size + 1, count + 1, simple?, ?[, tags, last?)
        _tag -> {size, count, simple?, previous, :direct}
      end
    end
  end

  defp span(<<c::utf8, rest::binary>>, size, count, simple?, previous, tags, last?)
       when is_unspaced(c) or is_wide_opener(c) do
    if size == 0 or joined?(previous, c),
      do: span(rest, size + byte_size(<<c::utf8>>), count + 1, false, c, tags, last?),
      else: {size, count, simple?, previous, :direct}
  end

  # "１０：３０"
  defp span(<<0xFF1A::utf8, d::utf8, rest::binary>>, size, count, _simple?, _previous, tags, last?)
       when is_digit(d),
       do: span(rest, size + 3 + byte_size(<<d::utf8>>), count + 2, false, d, tags, last?)

  defp span(<<0xFF1A::utf8>>, size, count, simple?, previous, _tags, false),
    do: {size, count, simple?, previous, :more}

  # Marks after which a sentence or a clause may end without a space.
  defp span(<<c::utf8, rest::binary>>, size, count, simple?, _previous, _tags, last?)
       when is_hard_terminator(c) or is_wide_closer(c) or (is_comma(c) and c > 0x7F) or
              c in [0x061B, 0xFF1B, 0xFF1A],
       do: closing(rest, c, size + byte_size(<<c::utf8>>), count + 1, simple?, last?)

  defp span(<<c::utf8, rest::binary>>, size, count, simple?, _previous, tags, last?),
    do: span(rest, size + byte_size(<<c::utf8>>), count + 1, simple? and is_simple(c), c, tags, last?)

  defp closing("", previous, size, count, simple?, last?),
    do: {size, count, simple?, previous, if(last?, do: :white, else: :more)}

  defp closing(<<c::utf8, rest::binary>>, previous, size, count, simple?, last?) do
    cond do
      is_white(c) ->
        {size, count, simple?, previous, :white}

      is_opening_quote(c) ->
        {size, count, simple?, previous, :direct}

      is_trailing(c) or is_terminator(c) or is_comma(c) or is_clause(c) ->
        closing(
          rest,
          c,
          size + byte_size(<<c::utf8>>),
          count + 1,
          simple? and (c < 0x7F or is_simple(c)),
          last?
        )

      joined?(previous, c) ->
        closing(rest, c, size + byte_size(<<c::utf8>>), count + 1, false, last?)

      true ->
        {size, count, simple?, previous, :direct}
    end
  end

  @doc """
  The class of a character of a script without spaces.
  """
  @spec script(char) :: class
  def script(c) when is_small_kana(c), do: :small
  def script(c) when is_han(c), do: :han
  def script(c) when is_hiragana(c), do: :hiragana
  def script(_c), do: :katakana

  @doc """
  The class of a word. `apart?` says whether white space is before it.
  """
  @spec class(String.t(), boolean, stop) :: class
  def class(<<c, _rest::binary>>, _apart?, _stop) when c in ?a..?z or c in ?A..?Z or c in ?0..?9, do: :word
  def class(<<c::utf8>>, _apart?, _stop) when c in [0xB7, 0x30FB], do: :middle

  def class(word, apart?, stop) do
    cond do
      closing?(word) -> :close
      not apart? and begins_closed?(word) -> :close
      opening?(word, stop) -> :open
      true -> :word
    end
  end

  defp begins_closed?(<<c::utf8, _rest::binary>>),
    do: is_terminator(c) or is_bracket_closer(c) or is_comma(c) or is_clause(c) or c in [0x201D, 0x2019]

  @doc """
  Whether a word consists only of closing marks and punctuation.
  """
  @spec closing?(String.t()) :: boolean
  def closing?(<<c::utf8, rest::binary>>)
      when is_terminator(c) or is_bracket_closer(c) or is_comma(c) or is_clause(c) or is_closing_quote(c),
      do: rest == "" or closing?(rest)

  def closing?(_word), do: false

  # Only opening marks. Marks that can be both are opening if a word follows immediately.
  defp opening?(<<c::utf8, rest::binary>>, stop)
       when c in [?(, ?{, ?[, 0xAB, 0x2039, 0xBF, 0xA1] or is_wide_opener(c) or
              (is_quote(c) and stop == :direct),
       do: rest == "" or opening?(rest, stop)

  defp opening?(_word, _stop), do: false

  @doc """
  The case of the first letter: `:lower`, `:other`, or nil if there is no letter.
  """
  @spec first_case(String.t()) :: :lower | :other | nil
  def first_case(<<c::utf8, rest::binary>>) do
    case kind(c) do
      :lower -> :lower
      kind when kind in [:upper, :uncased] -> :other
      _digit_or_symbol -> first_case(rest)
    end
  end

  def first_case(""), do: nil
end
