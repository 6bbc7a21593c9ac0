defmodule Chatterbex.Text.ValidationTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Model, Text.Validation}

  defp message(text) do
    assert {:error, %Chatterbex.Error{reason: :invalid_text, message: message}} = Validation.check(text)
    message
  end

  describe "what cannot be spoken" do
    test "nothing" do
      assert message("") == "the text is empty; give at least one word to speak"
    end

    test "blanks of all kinds" do
      for blank <- [" ", "\n\t\r\n", "\u00A0\u2003", "\u200B\uFEFF "] do
        assert message(blank) =~ ~r/the text is (blank|empty); give at least one word to speak/
      end
    end

    test "only punctuation" do
      assert message("?!... -- \u00BF") ==
               ~s(the text "?!... -- \u00BF" has no letter and no digit, so there is nothing to speak)
    end

    test "only emoji" do
      assert message("\u{1F600} \u{1F44D}\u{1F3FD}") =~
               "has no letter and no digit, so there is nothing to speak"
    end

    test "nil, numbers and other terms" do
      assert message(nil) == "the text must be a string, got nil"
      assert message(42) == "the text must be a string, got 42"
      assert message({:a, "b"}) == ~s(the text must be a string, got {:a, "b"})
      assert message(<<1::3>>) == "the text must be a string, got <<1::size(3)>>"
    end

    test "a charlist" do
      assert message(~c"Hello") ==
               "the text must be a string, got the list #{inspect(~c"Hello")}. Convert a charlist with to_string/1."
    end

    test "bytes that are not UTF-8" do
      assert message("caf\xE9!") ==
               "the text is not valid UTF-8: byte 3 does not belong to any character. " <>
                 "Convert it with :unicode.characters_to_binary(text, :latin1) if it is Latin-1."

      assert message(<<"ab", 0xED, 0xA0, 0x80>>) =~ "byte 2 does not belong"
    end

    test "NUL and other control characters" do
      assert message("a\0b") ==
               "the text has the control character U+0000 at byte 1. Only line breaks and tabs may stand in a text."

      assert message("bell\a") =~ "U+0007 at byte 4"
      assert message("\e[31mred") =~ "U+001B at byte 0"
      assert message("caf\u00E9\u0085") =~ "U+0085 at byte 5"
    end

    test "a word of 10,000 letters" do
      assert message("say " <> String.duplicate("a", 10_000) <> " now") ==
               "the text has a word of 10000 characters (aaaaaaaaaaaaaaaaaaaa...); at most 200 can be spoken as one word"
    end

    test "a text above every server's limit" do
      assert message(String.duplicate("a b ", 10_000_001)) =~
               "at most 10000000 characters are spoken in one request"
    end
  end

  describe "what can be spoken" do
    test "line breaks and tabs stay" do
      assert {:ok, "one\ttwo\r\nthree"} = Validation.check("one\ttwo\r\nthree")
    end

    test "letters are composed" do
      assert {:ok, "\u00E9t\u00E9"} = Validation.check("e\u0301te\u0301")
    end

    test "right-to-left text is kept, marks of direction are not" do
      assert {:ok, "\u05E9\u05DC\u05D5\u05DD"} = Validation.check("\u200F\u05E9\u05DC\u05D5\u05DD\u202C")
    end

    test "long runs of scripts without spaces are not one word" do
      assert {:ok, _text} = Validation.check(String.duplicate("\u4F60\u597D", 5_000))
    end

    test "digits alone" do
      assert {:ok, "1984"} = Validation.check("1984")
    end
  end

  describe "a server's limit" do
    test "is named together with the length" do
      assert {:error, %{reason: :invalid_text, message: message}} = Validation.fits(1_048_576, 20_000)

      assert message ==
               "the text is 1048576 characters long; at most 20000 characters are spoken in one request. " <>
                 "Cut it into pieces, or raise :max_characters of the server."

      assert :ok = Validation.fits(20_000, 20_000)
    end
  end

  describe "scripts" do
    setup do
      {:ok, hibari} = Model.fetch(:hibari)
      %{hibari: hibari}
    end

    test "a model that reads Latin letters refuses others, by name", %{hibari: hibari} do
      assert {:error, %{reason: :unknown_language, message: message}} =
               Validation.readable("Say \u05E9\u05DC\u05D5\u05DD", hibari)

      assert message =~ ~s(reads Latin letters only (languages: en\), and the text has "\u05E9" (U+05E9\))
    end

    test "marks that belong to no letter are dropped", %{hibari: hibari} do
      assert {:ok, "zalgo"} = Validation.readable("z\u0334al\u0336go\u0336", hibari)
      assert {:ok, "caf\u00E9 na\u00EFve"} = Validation.readable("caf\u00E9 na\u00EFve", hibari)
    end
  end
end
