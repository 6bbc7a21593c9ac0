defmodule Chatterbex.Prove.WordsTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Prove.Words

  doctest Words

  test "words are replaced, added and left out" do
    for {said, heard, errors} <- [
          {"one two three", "one two three", 0},
          {"One, two: three!", "one two three", 0},
          {"one two three", "one too three", 1},
          {"one two three", "one three", 1},
          {"one two three", "one two and three", 1},
          {"one two three", "two three four", 2},
          {"one two three", "", 3},
          {"", "one two", 2},
          {"a b a b a", "b a b a b", 2},
          {"", "", 0}
        ] do
      assert {said, heard, Words.errors(said, heard)} == {said, heard, errors}
    end
  end

  test "apostrophes belong to words, quotes do not" do
    assert Words.split("'It's' the dogs' o’clock") == ["it's", "the", "dogs", "o'clock"]
  end
end
