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

  test "a value comes back as it went" do
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
