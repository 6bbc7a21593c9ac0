defmodule Chatterbex.Speech.PieceTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Model
  alias Chatterbex.Speech.Piece
  alias Chatterbex.Text.Chunk

  test "only the first spoken piece uses the steps of the first chunk" do
    {:ok, nano} = Model.fetch(:nano)
    {:ok, hibari} = Model.fetch(:hibari)

    chunks =
      for {text, speakable} <- [{"***", false}, {"One.", true}, {"Two.", true}], do: chunk(text, speakable)

    [_silence, first, second] = Piece.number(chunks)

    assert Piece.command(first, true, nano) == %{number: 0, text: "One.", stream: true, options: %{}}
    assert Piece.command(second, true, nano).options == %{"first_chunk_steps" => 0}
    assert Piece.command(second, true, hibari).options == %{}
  end

  defp chunk(text, speakable), do: struct!(Chunk, text: text, speakable: speakable, pause: 0)
end
