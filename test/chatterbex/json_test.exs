defmodule Chatterbex.JSONTest do
  use ExUnit.Case, async: true

  alias Chatterbex.JSON

  doctest JSON

  test "reads every kind of value" do
    assert JSON.decode(~s( {"a" : [true, false, null, -0, 12, 0.5, -1e3, 2E-1], "b": {}, "c": []}\n)) ==
             {:ok, %{"a" => [true, false, nil, 0, 12, 0.5, -1000.0, 0.2], "b" => %{}, "c" => []}}
  end

  test "reads escapes and pairs of surrogates" do
    assert JSON.decode(~S("a\"\\\/\b\f\n\r\t\u00e9\uD83D\ude00 ü")) == {:ok, "a\"\\/\b\f\n\r\té😀 ü"}
  end

  test "reads only escapes of four hexadecimal digits" do
    for text <- [~S("\u+041"), ~S("\u-041"), ~S("\u 041"), ~S("\u00_1"), ~S("\u00g1")] do
      assert {:error, "unexpected " <> _} = JSON.decode(text)
    end

    assert JSON.decode(~S("\u00Ff")) == {:ok, "ÿ"}
  end

  test "reads and writes only UTF-8" do
    for bytes <- [<<"cut ", 0xC3>>, <<"a", 0xFF, "b">>, <<0xED, 0xA0, 0x80>>] do
      assert {:error, "unexpected " <> _} = JSON.decode(~s(") <> bytes <> ~s("))
      assert_raise ArgumentError, ~r/is not valid UTF-8/, fn -> JSON.encode(%{"a" => bytes}) end
      assert_raise ArgumentError, ~r/is not valid UTF-8/, fn -> JSON.encode(%{bytes => "a"}) end
    end
  end

  # Values of all kinds, and texts that are nearly JSON.
  test "round trips every value, and answers every text" do
    base = ExUnit.configuration()[:seed] * 1_000

    for seed <- (base + 1)..(base + 500) do
      :rand.seed(:exsss, {seed, 3, 4})
      value = any_value(4)
      text = JSON.encode(value)
      assert JSON.decode(text) == {:ok, value}, "seed #{seed}"

      at = :rand.uniform(byte_size(text)) - 1
      <<head::binary-size(at), _byte, tail::binary>> = text
      broken = head <> <<Enum.random([?", ?\\, ?+, ?u, ?{, ?], ?,, 0, 0xFF, ?1])>> <> tail

      case JSON.decode(broken) do
        {:ok, value} -> assert {:ok, value} == value |> JSON.encode() |> JSON.decode(), "seed #{seed}"
        {:error, message} -> assert is_binary(message), "seed #{seed}"
      end
    end
  end

  defp any_value(0), do: any_leaf()

  defp any_value(depth) do
    case :rand.uniform(3) do
      1 -> any_leaf()
      2 -> for _n <- 1..(:rand.uniform(4) - 1)//1, do: any_value(depth - 1)
      3 -> for _n <- 1..(:rand.uniform(4) - 1)//1, into: %{}, do: {any_text(), any_value(depth - 1)}
    end
  end

  defp any_leaf do
    case :rand.uniform(4) do
      1 -> Enum.random([nil, true, false])
      2 -> :rand.uniform(2_000_000_000_000) - 1_000_000_000_000
      3 -> (:rand.uniform() - 0.5) * :math.pow(10, :rand.uniform(40) - 20)
      4 -> any_text()
    end
  end

  defp any_text do
    for _n <- 1..(:rand.uniform(6) - 1)//1, into: "" do
      <<Enum.random([
          ~c("\\/\b\f\n\r\t\0),
          ~c( aZ{}[]:,),
          [0x1F, 0x7F, 0xE9, 0x2028, 0xFFFD, 0x1F600, 0x10FFFF]
        ])
        |> Enum.random()::utf8>>
    end
  end

  test "a value survives a round trip" do
    value = %{
      "list" => [1, [2.5, []], %{}],
      "text" => "tab\t\"quote\" \\ \n é😀 \u0001",
      "no" => nil,
      "" => true
    }

    assert value |> JSON.encode() |> JSON.decode() == {:ok, value}
  end

  test "equal values give equal files, whatever the order" do
    big = Map.new(1..100, &{"key #{&1}", &1})
    assert JSON.encode(big) == JSON.encode(big |> Enum.reverse() |> Map.new())
  end

  test "says what is wrong" do
    for {text, message} <- [
          {"", "unexpected end"},
          {"{", "unexpected end"},
          {"[1,", "unexpected end"},
          {~s({"a"}), ~s(unexpected "}")},
          {"[1,]", ~s(unexpected "]")},
          {"{} x", ~s(unexpected "x")},
          {"nul", ~s(unexpected "nul")},
          {"01", ~s(unexpected "1")},
          {"+1", ~s(unexpected "+1")},
          {~S("\ud83d"), "half of a surrogate pair"},
          {~S("\ude00"), "half of a surrogate pair"},
          {~S("\u12"), "unexpected end"},
          {~S("\u-123"), ~S(unexpected "-123" after \u)},
          {~S("\x"), ~S(unexpected "\\x\"")},
          {"\"a\nb\"", ~S(unexpected "\nb\"")},
          {"1e999", "number out of range: 1e999"},
          {String.duplicate("[", 1000), "nested too deep"}
        ] do
      assert JSON.decode(text) == {:error, message}, "for #{inspect(text)}"
    end

    assert {:error, _message} = JSON.decode(<<?", 0xFF, ?">>)
  end
end
