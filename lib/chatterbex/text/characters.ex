defmodule Chatterbex.Text.Characters do
  @moduledoc false
  # Classes of code points for splitting text. They are guards, so the scanners only need binary matching.

  # White space where a line may break, except line breaks.
  defguard is_space(c)
           when c == ?\s or c == ?\t or c == 0x3000 or c in 0x2000..0x2006 or c in 0x2008..0x200A or
                  c == 0x1680 or c == 0x205F

  defguard is_newline(c) when c in 0x0A..0x0D or c == 0x85 or c == 0x2028 or c == 0x2029

  # White space that does not break: "10 000", "M. Dupont", "va ?".
  defguard is_binding_space(c) when c == 0xA0 or c == 0x202F or c == 0x2007

  defguard is_white(c) when is_space(c) or is_newline(c) or is_binding_space(c)

  defguard is_han(c)
           when c in 0x4E00..0x9FFF or c in 0x3400..0x4DBF or c in 0x20000..0x3FFFD or c in 0xF900..0xFAFF or
                  c == 0x3005 or c == 0x3007 or c in 0x3021..0x3029 or c in 0x3105..0x312F

  defguard is_hiragana(c) when c in 0x3041..0x3096 or c in 0x309D..0x309F

  defguard is_katakana(c)
           when c in 0x30A1..0x30FA or c in 0x30FC..0x30FF or c in 0x31F0..0x31FF or c in 0xFF66..0xFF9D

  # Scripts without spaces between words.
  defguard is_unspaced(c) when c >= 0x3005 and (is_han(c) or is_hiragana(c) or is_katakana(c))

  # Kana that never begin a line: small ones, the prolonged sound mark, iteration marks.
  defguard is_small_kana(c)
           when c in [
                  0x3041,
                  0x3043,
                  0x3045,
                  0x3047,
                  0x3049,
                  0x3063,
                  0x3083,
                  0x3085,
                  0x3087,
                  0x308E,
                  0x3095,
                  0x3096
                ] or
                  c in [
                    0x30A1,
                    0x30A3,
                    0x30A5,
                    0x30A7,
                    0x30A9,
                    0x30C3,
                    0x30E3,
                    0x30E5,
                    0x30E7,
                    0x30EE,
                    0x30F5,
                    0x30F6
                  ] or
                  c in [0x30FC, 0x30FD, 0x30FE, 0x309D, 0x309E, 0x3005] or c in 0x31F0..0x31FF or
                  c in 0xFF67..0xFF70

  # These end a sentence, whatever follows: full stops of Chinese and Japanese, the question mark and full stop of
  # Arabic and Urdu, dandas, the end of a Hebrew verse.
  defguard is_hard_terminator(c)
           when c in [0x3002, 0xFF61, 0xFF01, 0xFF1F, 0x061F, 0x06D4, 0x0964, 0x0965, 0x05C3]

  defguard is_exclamation(c) when c in [?!, ??, 0x203C, 0x2047, 0x2048, 0x2049, 0x203D]

  # The full-width full stop may also be between digits.
  defguard is_dot(c) when c == ?. or c == 0xFF0E

  defguard is_terminator(c)
           when is_dot(c) or c == 0x2026 or is_exclamation(c) or is_hard_terminator(c)

  defguard is_comma(c) when c in [?,, 0x060C, 0x3001, 0xFF0C, 0xFF64]
  defguard is_clause(c) when c in [?;, ?:, 0x061B, 0xFF1B, 0xFF1A, 0x00B7, 0x0387, 0x037E]
  defguard is_dash(c) when c == ?- or c in 0x2010..0x2015

  defguard is_wide_opener(c)
           when c in [0x300C, 0x300E, 0x3010, 0x3008, 0x300A, 0x3014, 0x3016, 0x3018, 0xFF08, 0xFF3B, 0xFF5B] or
                  c == 0xFF62

  defguard is_wide_closer(c)
           when c in [0x300D, 0x300F, 0x3011, 0x3009, 0x300B, 0x3015, 0x3017, 0x3019, 0xFF09, 0xFF3D, 0xFF5D] or
                  c == 0xFF63

  defguard is_bracket_closer(c) when c in [?), ?], ?}] or is_wide_closer(c)

  # Quotation marks: which one opens and which one closes differs from language to language.
  defguard is_quote(c)
           when c in [?", ?', ?`, 0xAB, 0xBB, 0x05F4] or c in 0x2018..0x201F or c == 0x2039 or c == 0x203A

  # Those that rarely close, and those that rarely open.
  defguard is_opening_quote(c) when c in [0x2018, 0x201A, 0x201C, 0x201E, 0xAB, 0x2039]
  defguard is_closing_quote(c) when c in [0x2019, 0x201D, 0xBB, 0x203A]

  # Marks of emphasis in Markdown.
  defguard is_emphasis(c) when c in [?*, ?_, ?~]

  # Invisible marks: zero-width space, direction marks, BOM.
  defguard is_invisible(c)
           when c == 0x200B or c == 0x200E or c == 0x200F or c in 0x202A..0x202E or c in 0x2066..0x2069 or
                  c == 0x61C or c == 0xFEFF or c == 0x00AD

  # Emoji and other pictographs, and the characters that join them.
  defguard is_picture(c)
           when c in 0x1F000..0x1FAFF or c in 0x2600..0x27BF or c == 0xFE0F or c == 0x200D or
                  c in 0x2B00..0x2BFF or c in 0xE0020..0xE007F

  defguard is_superscript(c) when c in [0xB9, 0xB2, 0xB3] or c in 0x2070..0x207F

  # Marks allowed between the end of a sentence and the white space after it.
  defguard is_trailing(c)
           when is_bracket_closer(c) or is_quote(c) or is_emphasis(c) or is_invisible(c) or is_picture(c) or
                  is_superscript(c)

  defguard is_bullet(c)
           when c in [0x2022, 0x2023, 0x2043, 0x25E6, 0x25AA, 0x25AB, 0x25A0, 0x25A1, 0x25CF, 0x25CB] or
                  c in [0x30FB, 0x2219, 0x203B] or c in 0x2460..0x2473

  # Marks allowed between white space and the first letter of a sentence.
  defguard is_leading(c)
           when c in [?(, ?[, ?{, ?#, ?>, 0xBF, 0xA1] or is_wide_opener(c) or is_quote(c) or is_emphasis(c) or
                  is_invisible(c) or is_dash(c) or is_bullet(c)

  defguard is_digit(c) when c in ?0..?9 or c in 0x0660..0x0669 or c in 0x0966..0x096F or c in 0xFF10..0xFF19

  # Letters and vowel signs, so that most words take the fast path.
  defguard is_plain_letter(c)
           when c in ?a..?z or c in ?A..?Z or c in ?0..?9 or c in 0xC0..0x2FF or c in 0x388..0x481 or
                  c in 0x5D0..0x5EA or c in 0x620..0x64A or c in 0x904..0x939 or c in 0x93E..0x94D or
                  c in 0xAC00..0xD7A3

  # Letters that are always a separate grapheme next to others of this list.
  defguard is_simple(c)
           when c in 0xA0..0x2FF or c in 0x400..0x482 or c in 0x48A..0x52F or c in 0x370..0x3FF or
                  c in 0x5D0..0x5EA or c in 0x620..0x64A or c in 0xAC00..0xD7A3 or c in 0x2010..0x2027

  @doc """
  The case of a letter: `:upper`, `:lower`, `:uncased`; `:digit`; or `:symbol` for everything else.
  """
  @spec kind(char) :: :upper | :lower | :uncased | :digit | :symbol
  def kind(c) when c in ?a..?z, do: :lower
  def kind(c) when c in ?A..?Z, do: :upper
  def kind(c) when is_digit(c), do: :digit
  def kind(c) when c < 0x80, do: :symbol
  def kind(c) when is_unspaced(c), do: :uncased

  def kind(c) do
    letter = <<c::utf8>>

    cond do
      String.downcase(letter) != letter -> :upper
      String.upcase(letter) != letter -> :lower
      Regex.match?(~r/^\p{L}/u, letter) -> :uncased
      Regex.match?(~r/^\p{N}/u, letter) -> :digit
      true -> :symbol
    end
  end

  @doc """
  Whether two code points that follow each other belong to one grapheme.

  Exact if the first one is not an emoji, a regional indicator or a jamo: nothing before it matters then.
  """
  @spec joined?(char, char) :: boolean
  def joined?(previous, c) when c < 0x300 and previous < 0x600, do: false

  def joined?(previous, c)
      when (previous < 0x300 or is_unspaced(previous) or previous in 0x3001..0x303F) and
             (is_unspaced(c) or c in 0x3001..0x3029 or c in 0xFF01..0xFF64),
      do: false

  def joined?(previous, c), do: match?([[_, _ | _] | _], :unicode_util.gc([previous, c]))

  @doc """
  The last code point of a binary of valid UTF-8, and the number of bytes before it.
  """
  @spec last(binary, non_neg_integer) :: {char, non_neg_integer} | nil
  def last(_binary, 0), do: nil

  def last(binary, size) do
    case :binary.at(binary, size - 1) do
      c when c < 0x80 -> {c, size - 1}
      _continuation -> last(binary, size, size - 2)
    end
  end

  defp last(binary, size, at) do
    if :binary.at(binary, at) in 0x80..0xBF do
      last(binary, size, at - 1)
    else
      <<c::utf8>> = binary_part(binary, at, size - at)
      {c, at}
    end
  end
end
