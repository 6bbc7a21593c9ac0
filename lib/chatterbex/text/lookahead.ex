defmodule Chatterbex.Text.Lookahead do
  @moduledoc false
  # Reads ahead in the text without consuming it, enough to decide whether a sentence has ended.
  #
  # Every function returns `:more` if the answer depends on text that has not arrived yet, and the same answer however the
  # text was cut into fragments.

  import Chatterbex.Text.Characters

  alias Chatterbex.Text.Markup

  # At most this number of bytes is read for an answer; after that the text is used as it is.
  @reach 256
  @longest_starter 32

  @type next ::
          {:letter, :upper | :lower | :uncased, binary}
          | :digit
          | :symbol
          | :punctuation
          | :absorb
          | :pause
          | :end
          | :more

  @doc """
  Classifies `text`, which starts at the first visible character after a word that may end a sentence.

  `:absorb` says that it is nothing but closing marks, terminators and pictures, which belong to what is before.
  `{:letter, kind, text}` is the first letter, with quotation marks, dashes and sounds before it left out.
  """
  @spec next(binary, Markup.t(), boolean) :: next
  def next(text, tags, last) do
    case absorb(text, text, last) do
      false -> letter(text, 0, tags, last)
      answer -> answer
    end
  end

  # Closing marks that cannot open anything, terminators and pictures, up to white space.
  defp absorb(<<c::utf8, rest::binary>>, whole, last)
       when is_terminator(c) or is_bracket_closer(c) or is_picture(c) or is_invisible(c) or
              c in [0xBB, 0x203A, 0x201D, 0x2019] do
    if byte_size(whole) - byte_size(rest) > @reach, do: :absorb, else: absorb(rest, whole, last)
  end

  defp absorb(<<c::utf8, _rest::binary>>, _whole, _last) when not is_white(c), do: false
  defp absorb(whole, whole, _last), do: false
  defp absorb(<<_white::utf8, _rest::binary>>, _whole, _last), do: :absorb
  defp absorb(_incomplete, _whole, true), do: :absorb
  defp absorb(_incomplete, _whole, false), do: :more

  defp letter(_text, seen, _tags, _last) when seen > @reach, do: :symbol

  defp letter(<<?[, rest::binary>> = text, seen, tags, last) do
    case Markup.read(text, tags, last) do
      :more -> :more
      :text -> letter(rest, seen + 1, tags, last)
      {:pause, _milliseconds, _rest} -> :pause
      {:sound, _tag, rest} -> letter(rest, seen + byte_size(text) - byte_size(rest), tags, last)
      {:style, _tag, rest} -> letter(rest, seen + byte_size(text) - byte_size(rest), tags, last)
      {:drop, rest} -> letter(rest, seen + byte_size(text) - byte_size(rest), tags, last)
      # Reported when the tag itself is reached.
      {:error, _error} -> :symbol
    end
  end

  defp letter(<<"\r\n", rest::binary>>, seen, tags, last), do: line_start(rest, seen + 2, tags, last)
  defp letter("\r", _seen, _tags, false), do: :more

  defp letter(<<c, rest::binary>>, seen, tags, last) when is_newline(c),
    do: line_start(rest, seen + 1, tags, last)

  # ":)" counts as a pictograph too.
  defp letter(<<c, d::utf8, _rest::binary>>, _seen, _tags, _last) when c in [?:, ?;] and not is_white(d),
    do: :symbol

  defp letter(<<c>>, _seen, _tags, false) when c in [?:, ?;], do: :more

  defp letter(<<c::utf8, rest::binary>> = text, seen, tags, last)
       when is_leading(c) or is_white(c) or is_terminator(c) or is_picture(c) or is_bracket_closer(c),
       do: letter(rest, seen + byte_size(text) - byte_size(rest), tags, last)

  defp letter(<<c::utf8, _rest::binary>>, _seen, _tags, _last) when is_comma(c) or is_clause(c),
    do: :punctuation

  defp letter(<<c::utf8, _rest::binary>> = text, _seen, _tags, _last) do
    case kind(c) do
      :digit -> :digit
      :symbol -> :symbol
      kind -> {:letter, kind, text}
    end
  end

  defp letter(_incomplete, _seen, _tags, true), do: :end
  defp letter(_incomplete, _seen, _tags, false), do: :more

  defp line_start(rest, seen, tags, last) do
    case blank_line(rest) do
      :more -> if(last, do: :end, else: :more)
      true -> :end
      false -> letter(rest, seen, tags, last)
    end
  end

  defp blank_line(<<c, rest::binary>>) when c == ?\s or c == ?\t or c == ?\r, do: blank_line(rest)
  defp blank_line(<<?\n, _rest::binary>>), do: true
  defp blank_line(""), do: :more
  defp blank_line(_text), do: false

  @doc """
  Whether the word at the beginning of `text` is one of `starters`: words that begin sentences.
  """
  @spec starter?(binary, %{String.t() => true}, boolean) :: boolean | :more
  def starter?(text, starters, last) do
    case word_end(text, 0) do
      :more when not last -> :more
      :more -> Map.has_key?(starters, text)
      # "A." in "J. A. Smith" is an initial.
      {size, ?.} -> size > 1 and Map.has_key?(starters, binary_part(text, 0, size))
      {size, _c} -> Map.has_key?(starters, binary_part(text, 0, size))
      :long -> false
    end
  end

  defp word_end(_text, size) when size > @longest_starter, do: :long

  defp word_end(text, size) do
    case text do
      <<_::binary-size(size), c, _::binary>> when c in ?a..?z or c in ?A..?Z or c in ?0..?9 ->
        word_end(text, size + 1)

      <<_::binary-size(size), c::utf8, _::binary>> when c < 0x80 ->
        {size, c}

      <<_::binary-size(size), c::utf8, _::binary>>
      when is_quote(c) or is_white(c) or is_comma(c) or is_clause(c) or is_terminator(c) or is_dash(c) ->
        {size, c}

      <<_::binary-size(size), c::utf8, _::binary>> ->
        word_end(text, size + byte_size(<<c::utf8>>))

      _end_or_incomplete ->
        :more
    end
  end

  @doc """
  What the line that begins at `text` is: an item of a list, a heading in Markdown's manner, a rule, or text.

  `open` says whether it follows a line that is complete: only there is "12." an item and not the end of a
  wrapped sentence.
  """
  @spec line(binary, boolean, boolean) :: :item | :heading | :rule | :text | :more
  def line(<<c, rest::binary>>, _open, last) when c in [?-, ?*, ?+] do
    case rest do
      <<d::utf8, _::binary>> when is_white(d) -> :item
      <<^c, _::binary>> -> rule(rest, c, 1, last)
      "" -> if(last, do: :text, else: :more)
      _other -> :text
    end
  end

  def line(<<c, rest::binary>>, _open, last) when c in [?=, ?_, ?~], do: rule(rest, c, 1, last)
  def line(<<?#, rest::binary>>, _open, last), do: heading(rest, 1, last)
  def line(<<?|, _rest::binary>>, _open, _last), do: :item

  def line(<<c::utf8, _rest::binary>>, _open, _last) when is_bullet(c) or c in 0x2013..0x2015, do: :item

  # A list starts with 1.
  def line(<<?1, rest::binary>>, _open, last), do: number(rest, 1, true, last)
  def line(<<c::utf8, _rest::binary>> = text, open, last) when is_digit(c), do: number(text, 0, open, last)
  def line(<<?(, rest::binary>>, _open, last), do: parenthesis(rest, 0, last)

  # "a) apples", "iv) more"
  def line(<<c, rest::binary>>, _open, last) when c in ?a..?z or c in ?A..?Z, do: lettered(rest, 1, last)
  def line(<<c::utf8, rest::binary>>, _open, last) when is_han(c), do: chinese_number(<<c::utf8>>, rest, last)
  def line(_text, _open, _last), do: :text

  defp rule(<<c, rest::binary>>, c, count, last) when count < @reach, do: rule(rest, c, count + 1, last)

  defp rule(<<d::utf8, _rest::binary>>, _c, count, _last),
    do: if(is_white(d) and count >= 3, do: :rule, else: :text)

  defp rule(_end, _c, count, true), do: if(count >= 3, do: :rule, else: :text)
  defp rule("", _c, _count, false), do: :more
  defp rule(_incomplete, _c, _count, _last), do: :text

  defp heading(<<?#, rest::binary>>, count, last) when count < 6, do: heading(rest, count + 1, last)
  defp heading(<<c, _rest::binary>>, _count, _last) when c == ?\s or c == ?\t, do: :heading
  defp heading("", _count, false), do: :more
  defp heading(_other, _count, _last), do: :text

  defp number(<<c::utf8, rest::binary>>, count, open, last) when is_digit(c) and count < 3,
    do: number(rest, count + 1, open, last)

  defp number(<<c::utf8, rest::binary>>, count, open, last) when count > 0 do
    cond do
      c in [?), 0xFF09, 0x3001] -> :item
      c == 0xFF0E -> if(open, do: :item, else: :text)
      c == ?. and open -> spaced(rest, last)
      true -> :text
    end
  end

  defp number("", _count, _open, false), do: :more
  defp number(_other, _count, _open, _last), do: :text

  defp spaced(<<c::utf8, _rest::binary>>, _last) when is_white(c), do: :item
  defp spaced("", false), do: :more
  defp spaced(_other, _last), do: :text

  defp parenthesis(<<c, rest::binary>>, count, last)
       when (c in ?0..?9 or c in ?a..?z or c in ?A..?Z) and count < 3,
       do: parenthesis(rest, count + 1, last)

  defp parenthesis(<<?), rest::binary>>, count, last) when count > 0, do: spaced(rest, last)
  defp parenthesis("", _count, false), do: :more
  defp parenthesis(_other, _count, _last), do: :text

  defp lettered(<<?), rest::binary>>, _count, last), do: spaced(rest, last)

  defp lettered(<<c, rest::binary>>, count, last) when c in [?i, ?v, ?x] and count < 4,
    do: lettered(rest, count + 1, last)

  defp lettered("", _count, false), do: :more
  defp lettered(_other, _count, _last), do: :text

  @chinese_numbers ~w(一 二 三 四 五 六 七 八 九 十)

  defp chinese_number(first, rest, last) when first in @chinese_numbers, do: chinese_number(rest, 1, last)
  defp chinese_number(first, _rest, _last) when is_binary(first), do: :text
  defp chinese_number(<<0x3001::utf8, _rest::binary>>, _count, _last), do: :item

  defp chinese_number(<<c::utf8, rest::binary>>, count, last) when is_han(c) and count < 3,
    do: if(<<c::utf8>> in @chinese_numbers, do: chinese_number(rest, count + 1, last), else: :text)

  defp chinese_number(<<_c::utf8, _rest::binary>>, _count, _last), do: :text
  defp chinese_number(_end, _count, last), do: if(last, do: :text, else: :more)
end
