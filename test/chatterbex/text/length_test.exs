defmodule Chatterbex.Text.LengthTest do
  @moduledoc """
  The work grows with the length of a text, and not faster: counted in reductions, which no other load on the machine
  changes.
  """
  use ExUnit.Case, async: true

  alias Chatterbex.Text

  # Texts in which the splitter searches for something that never comes, or comes everywhere.
  @shapes [
    {"prose", "The cat sat, on 3.5 mats; see https://a.b/c. \"Why?\" she asked Dr. Ray!\n\n"},
    {"no end of a sentence", "and then and then "},
    {"no white space", "漢字かな交じり文"},
    {"open brackets", "( [ \" « “ a "},
    {"closing brackets", "a.) ] \" » ” "},
    {"full stops", "a . . . . "},
    {"abbreviations", "Dr. e.g. "},
    {"line breaks", "a\n"},
    {"pauses", "[pause 1ms] a "},
    {"marks", "e\u0301\u0302\u0303 "}
  ]

  defp text(shape, bytes), do: String.duplicate(shape, div(bytes, byte_size(shape)))

  defp work(function) do
    {:reductions, before} = Process.info(self(), :reductions)
    function.()
    {:reductions, later} = Process.info(self(), :reductions)
    later - before
  end

  for {name, shape} <- @shapes do
    test "#{name}: four times the text is four times the work" do
      [once, four_times] =
        for bytes <- [50_000, 200_000] do
          text = text(unquote(shape), bytes)
          work(fn -> assert {:ok, [_first | _rest]} = Text.chunks(text) end)
        end

      assert four_times < 5 * once
    end
  end

  @tag timeout: 300_000
  test "10 MB, chunk by chunk: ten times the work of 1 MB" do
    {_name, shape} = hd(@shapes)

    [one, ten] =
      for megabytes <- [1, 10] do
        text = text(shape, megabytes * 1_000_000)
        work(fn -> assert text |> Text.stream() |> Enum.count() > 10_000 end)
      end

    assert ten < 11 * one
  end
end
