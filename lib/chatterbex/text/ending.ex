defmodule Chatterbex.Text.Ending do
  @moduledoc false
  # How a word ends: with a comma, or in a way that may end a sentence.

  import Chatterbex.Text.Characters

  alias Chatterbex.Text.{Abbreviations, Word}

  @typedoc """
  What a sentence's end hangs on: `:hard` nothing, `:normal` what comes next, and else an abbreviation, an initial, an
  ordinal or the number of an item. The second element says whether a quotation mark or a bracket closes after it.
  """
  @type pending :: {:hard | :normal | :always | :number | :maybe | :initial | :ordinal | :marker, boolean}

  @typedoc "Where a word stands: the language, whether it is the first one of its sentence, and how the one before it ends."
  @type place :: %{rules: Abbreviations.rules(), begun?: boolean, ending: atom}

  @doc """
  How `word` ends. `last` is its last code point.
  """
  @spec of(String.t(), char, Word.stop(), place) :: :none | :comma | :clause | pending
  def of(_word, last, _stop, _place) when is_plain_letter(last), do: :none
  def of(word, _last, stop, place), do: ending(word, byte_size(word), false, stop, place)

  defp ending(_word, 0, _closed?, _stop, _place), do: :none

  defp ending(word, size, closed?, stop, place) do
    case last(word, size) do
      {c, _at} when c in ?a..?z or c in ?A..?Z or c in ?0..?9 -> :none
      {c, at} when is_dot(c) -> direct(dot(word, at, closed?, place), word, stop)
      {0x2026, _at} -> if(stop == :direct, do: :clause, else: {:normal, closed?})
      {c, _at} when is_exclamation(c) -> direct({:normal, closed?}, word, stop)
      {c, _at} when is_hard_terminator(c) -> {:hard, closed?}
      {?;, _at} when place.rules.semicolon_asks -> {:normal, closed?}
      {c, _at} when is_comma(c) -> :comma
      {c, _at} when is_clause(c) -> :clause
      {?-, 0} -> :clause
      {c, _at} when is_dash(c) and c > 0x2012 -> :clause
      {?], at} -> footnote(word, at, at, stop, place)
      {c, at} when is_quote(c) or is_bracket_closer(c) -> ending(word, at, true, stop, place)
      {c, at} when is_trailing(c) -> ending(word, at, closed?, stop, place)
      _letter -> :none
    end
  end

  # Without a space after it, only a mark that has no meaning inside a word ends a sentence.
  defp direct({:normal, closed?} = ending, word, :direct) do
    cond do
      :binary.match(word, "://") != :nomatch -> :none
      String.ends_with?(word, "..") -> :clause
      true -> {elem(ending, 0), closed?}
    end
  end

  defp direct(ending, _word, _stop), do: ending

  # "the end.[12]"
  defp footnote(word, size, at, stop, place) do
    case last(word, at) do
      {c, at} when c in ?0..?9 -> footnote(word, size, at, stop, place)
      {?[, before} when at < size -> ending(word, before, false, stop, place)
      _other -> ending(word, size, true, stop, place)
    end
  end

  # Classifies the last word before a dot.
  defp dot(word, size, closed?, place) do
    case last(word, size) do
      {c, _at} when is_terminator(c) -> {:normal, closed?}
      nil -> {:normal, closed?}
      _other -> {word |> binary_part(0, size) |> bare() |> abbreviation(place), closed?}
    end
  end

  defp bare(<<c::utf8, rest::binary>>) when is_leading(c), do: bare(rest)
  defp bare(word), do: word

  defp abbreviation("", _place), do: :normal

  defp abbreviation(<<c::utf8, _rest::binary>> = word, place) when is_digit(c) do
    cond do
      not Regex.match?(~r/^\p{Nd}{1,4}(\.\p{Nd}{1,3})*$/u, word) -> :normal
      place.rules.ordinals == :dates -> if(not place.begun?, do: :marker, else: :ordinal)
      Regex.match?(~r/^\p{Nd}{4}/u, word) -> :normal
      not place.begun? -> :marker
      # The 5 in "No. 5. Then" is not an ordinal.
      place.rules.ordinals == nil or place.ending == :number or String.contains?(word, ".") -> :normal
      true -> :ordinal
    end
  end

  defp abbreviation(word, place) do
    small = String.downcase(word)

    with :error <- known(small, word, place.rules) do
      cond do
        initial?(word) -> if(not place.begun?, do: :marker, else: :initial)
        Regex.match?(~r/^\p{L}\p{M}*(\.\p{L}\p{M}*)+$/u, word) -> :maybe
        place.rules.ordinals != nil and Regex.match?(~r/^[IVX]+$/, word) -> :ordinal
        true -> :normal
      end
    else
      {:ok, :initial} when not place.begun? -> :marker
      {:ok, kind} -> kind
    end
  end

  # Letters that stand for names: those with a case, Hebrew and Arabic ones. Other meanings ("p. 12", "s. 12") do not
  # end a sentence either.
  defp initial?(<<c::utf8>>), do: c in 0x5D0..0x64A or kind(c) in [:upper, :lower]
  defp initial?(_word), do: false

  defp known(small, word, rules) do
    case rules.kinds do
      %{^small => :number} -> if(initial?(word), do: :error, else: {:ok, :number})
      %{^small => kind} -> {:ok, kind}
      _none -> compound(small, rules)
    end
  end

  # "l'art. 5", "Hauptstr. 5"
  defp compound(word, rules) do
    case :binary.split(word, ["'", "\u2019"]) do
      [_article, rest] -> Map.fetch(rules.kinds, rest)
      [_word] -> if(Enum.any?(rules.endings, &String.ends_with?(word, &1)), do: {:ok, :number}, else: :error)
    end
  end
end
