defmodule Chatterbex.Prove.Words do
  @moduledoc false
  # Compares the text with what the recogniser heard, word by word.

  @doc """
  The words of an English text, in lower case.

      iex> Chatterbex.Prove.Words.split("It’s ten minutes, I think.")
      ["it's", "ten", "minutes", "i", "think"]
  """
  @spec split(String.t()) :: [String.t()]
  def split(text) do
    text = text |> String.downcase() |> String.replace("’", "'")
    for [word] <- Regex.scan(~r/[a-z]+(?:'[a-z]+)*/, text), do: word
  end

  @doc """
  The number of words to replace, add or leave out to get from one text to the other.

      iex> Chatterbex.Prove.Words.errors("The weather is nice today.", "the whether is nice")
      2
  """
  @spec errors(String.t(), String.t()) :: non_neg_integer
  def errors(said, heard) do
    heard = split(heard)
    first = Enum.to_list(0..length(heard))
    said |> split() |> Enum.reduce(first, &row(&1, &2, heard)) |> List.last()
  end

  # The next row of the table of distances: from one word more of what was said, to each beginning of what was heard.
  defp row(word, [corner | above] = _row, heard) do
    {distances, _last} =
      heard
      |> Enum.zip(Enum.zip([corner | above], above))
      |> Enum.map_reduce(corner + 1, fn {other, {diagonal, up}}, left ->
        distance = Enum.min([left + 1, up + 1, diagonal + if(word == other, do: 0, else: 1)])
        {distance, distance}
      end)

    [corner + 1 | distances]
  end
end
