defmodule Chatterbex.Text.Heading do
  @moduledoc false
  # Headings that differ from text only by their form.

  # Graphemes of a heading in capitals, in title case, and in a script without spaces.
  @longest 60
  @longest_title 40
  @longest_unspaced_title 20

  @doc """
  The length of the longest heading, in graphemes.
  """
  @spec longest() :: pos_integer
  def longest, do: @longest

  @doc """
  Whether the first line of a paragraph, given as words, is a heading without a mark: a short line in capitals, in title
  case, or in a script without spaces.
  """
  @spec heading?([String.t()]) :: boolean
  def heading?(words) do
    line = Enum.join(words, " ")
    size = String.length(line)

    cond do
      line =~ ~r/[\p{Han}\p{Hiragana}\p{Katakana}]/u ->
        size <= @longest_unspaced_title

      line =~ ~r/\p{Lu}.*\p{Lu}/u and not (line =~ ~r/\p{Ll}/u) ->
        size <= @longest

      size <= @longest_title ->
        line =~ ~r/^\P{L}*\p{Lu}/u and not Enum.any?(words, &(&1 =~ ~r/^\P{L}*\p{Ll}{4}/u))

      true ->
        false
    end
  end
end
