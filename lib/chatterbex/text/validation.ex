defmodule Chatterbex.Text.Validation do
  @moduledoc false
  # Every check of a text before native code sees it.

  alias Chatterbex.{Error, Model, Options}

  # No word of any language is longer; a "word" like this is a key, a hash or a mistake, and models garble it.
  @longest_word 200

  # Direction and width marks that are neither visible nor audible: BOM, zero-width space, soft hyphen,
  # left-to-right and right-to-left marks, embeddings and isolates. Joiners stay: they change how words are read.
  defp invisible, do: ~r/[\x{00AD}\x{200B}\x{200E}\x{200F}\x{202A}-\x{202E}\x{2066}-\x{2069}\x{FEFF}]/u

  defp controls, do: ~r/[\x{0000}-\x{0008}\x{000B}\x{000C}\x{000E}-\x{001F}\x{007F}-\x{009F}]/u

  # Scripts that write words without spaces between them.
  @unspaced "\\p{Han}\\p{Hiragana}\\p{Katakana}\\p{Thai}\\p{Lao}\\p{Khmer}\\p{Myanmar}"

  # Above what any server may allow (the schema's maximum of :max_characters, all of 4 bytes).
  @max_bytes 40_000_000

  @doc """
  Checks a text and returns it as the model gets it: NFC, without invisible marks.
  """
  @spec check(term) :: {:ok, String.t()} | {:error, Error.t()}
  def check(text) do
    with :ok <- string(text),
         :ok <- size(text),
         :ok <- utf8(text),
         :ok <- controls(text),
         text = text |> String.replace(invisible(), "") |> String.normalize(:nfc),
         :ok <- speakable(text),
         :ok <- words(text) do
      {:ok, text}
    end
  end

  @doc """
  Checks that a text of the given number of characters is within a server's limit.
  """
  @spec fits(non_neg_integer, pos_integer) :: :ok | {:error, Error.t()}
  def fits(characters, max) when characters <= max, do: :ok
  def fits(characters, max), do: too_long("#{characters} characters", max)

  @doc """
  Checks that `model` can read the text's script.
  """
  @spec readable(String.t(), Model.t()) :: {:ok, String.t()} | {:error, Error.t()}
  def readable(text, %Model{scripts: :any}), do: {:ok, text}

  def readable(text, %Model{scripts: [:latin]} = model) do
    case Regex.run(~r/(?!\p{Latin})\p{L}/u, text) do
      nil ->
        # Marks that remain after NFC have no composed form in any Latin alphabet: they are decoration, not spelling.
        {:ok, String.replace(text, ~r/\p{M}/u, "")}

      [letter] ->
        {:error,
         Error.new(
           :unknown_language,
           "the model #{inspect(model.name)} reads Latin letters only (languages: #{Enum.join(model.languages, ", ")}), " <>
             "and the text has #{inspect(letter)} (#{code_point(letter)}). Choose a model that speaks its language: " <>
             "Chatterbex.models/0 lists them.",
           %{character: letter, languages: model.languages}
         )}
    end
  end

  defp string(text) when is_binary(text), do: :ok

  defp string(text) when is_list(text) do
    invalid(
      "the text must be a string, got the list #{Options.Schema.show(text)}. Convert a charlist with to_string/1."
    )
  end

  defp string(text), do: invalid("the text must be a string, got #{Options.Schema.show(text)}")

  defp size(text) when byte_size(text) > @max_bytes, do: too_long("#{byte_size(text)} bytes", 10_000_000)
  defp size(_text), do: :ok

  defp too_long(length, max) do
    invalid(
      "the text is #{length} long; at most #{max} characters are spoken in one request. " <>
        "Cut it into pieces, or raise :max_characters of the server.",
      %{max_characters: max}
    )
  end

  defp utf8(text) do
    case :unicode.characters_to_binary(text) do
      valid when is_binary(valid) ->
        :ok

      {_error_or_incomplete, valid, _rest} ->
        invalid(
          "the text is not valid UTF-8: byte #{byte_size(valid)} does not belong to any character. " <>
            "Convert it with :unicode.characters_to_binary(text, :latin1) if it is Latin-1.",
          %{byte: byte_size(valid)}
        )
    end
  end

  defp controls(text) do
    case Regex.run(controls(), text, return: :index) do
      nil ->
        :ok

      [{at, length}] ->
        invalid(
          "the text has the control character #{text |> binary_part(at, length) |> code_point()} at byte #{at}. " <>
            "Only line breaks and tabs may stand in a text.",
          %{byte: at}
        )
    end
  end

  defp speakable(text) do
    cond do
      text =~ ~r/[\p{L}\p{N}]/u ->
        :ok

      text == "" ->
        invalid("the text is empty; give at least one word to speak")

      text =~ ~r/^\s*$/u ->
        invalid("the text is blank; give at least one word to speak")

      true ->
        invalid(
          "the text #{Options.Schema.show(text)} has no letter and no digit, so there is nothing to speak"
        )
    end
  end

  defp words(text) do
    with [word] <- Regex.run(~r/(?:(?![#{@unspaced}])[\p{L}\p{M}\p{N}]){#{@longest_word + 1},}/u, text) do
      invalid(
        "the text has a word of #{String.length(word)} characters (#{String.slice(word, 0, 20)}...); " <>
          "at most #{@longest_word} can be spoken as one word",
        %{characters: String.length(word), max_characters: @longest_word}
      )
    else
      nil -> :ok
    end
  end

  defp code_point(character) do
    [code | _rest] = String.to_charlist(character)
    "U+" <> (code |> Integer.to_string(16) |> String.pad_leading(4, "0"))
  end

  defp invalid(message, details \\ %{}), do: {:error, Error.new(:invalid_text, message, details)}
end
