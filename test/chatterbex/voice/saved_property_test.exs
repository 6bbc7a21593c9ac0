defmodule Chatterbex.Voice.SavedPropertyTest do
  @moduledoc """
  Saved voices from strangers: whatever the bytes are, the answer is a voice or an error in words.
  """
  use ExUnit.Case, async: true

  alias Chatterbex.JSON
  alias Chatterbex.Voice.{Safetensors, Saved}

  # The same files in every run of a seed.
  setup do
    :rand.seed(:exsss, {ExUnit.configuration()[:seed], 0, 0})
    :ok
  end

  defp file(entries, data) do
    header = if is_binary(entries), do: entries, else: JSON.encode(entries)
    <<byte_size(header)::64-little, header::binary, data::binary>>
  end

  defp entries do
    %{
      "__metadata__" => %{"chatterbex_voice" => "1", "family" => "turbo", "name" => "Ann", "seconds" => "6.5"},
      "speaker" => %{"dtype" => "F32", "shape" => [1, 4], "data_offsets" => [0, 16]},
      "tokens" => %{"dtype" => "I64", "shape" => [3], "data_offsets" => [16, 40]}
    }
  end

  defp sealed, do: Safetensors.seal(file(entries(), String.duplicate(<<7>>, 40)), %{})

  defp answer(bytes) do
    case Saved.read(bytes) do
      {:ok, %Saved{} = voice} ->
        {:ok, voice}

      {:error, why} ->
        assert is_binary(why) and String.valid?(why) and why != ""
        {:error, why}
    end
  end

  test "a sealed file with one changed bit is refused" do
    whole = sealed()
    assert {:ok, %Saved{family: "turbo", name: "Ann"}} = answer(whole)

    for at <- 0..(bit_size(whole) - 1) do
      <<before::bitstring-size(at), bit::1, rest::bitstring>> = whole
      assert {:error, _why} = answer(<<before::bitstring, 1 - bit::1, rest::bitstring>>)
    end
  end

  test "a sealed file that was shortened or extended is refused" do
    whole = sealed()

    for length <- 0..(byte_size(whole) - 1),
        do: assert({:error, _why} = answer(binary_part(whole, 0, length)))

    assert {:error, _why} = answer(whole <> <<0>>)
  end

  test "bytes changed at random" do
    for _round <- 1..3_000 do
      bytes = Enum.reduce(1..:rand.uniform(6), sealed(), fn _change, bytes -> changed(bytes) end)
      answer(bytes)
      _voice_or_error = Saved.parse(bytes)
    end
  end

  test "headers with any value in any place" do
    for _round <- 1..3_000 do
      bytes = file(planted(entries(), value()), String.duplicate(<<0>>, :rand.uniform(64)))
      answer(bytes)
      _voice_or_error = Saved.parse(bytes)
    end
  end

  test "headers that are expensive to read" do
    number = String.duplicate("9", 30_000)
    shape = Enum.map_join(1..6_000, ",", fn _dimension -> "99999999" end)

    for header <- [
          ~s({"a":{"dtype":"F32","shape":[#{number},#{number}],"data_offsets":[0,4]}}),
          ~s({"a":{"dtype":"F32","shape":[#{shape}],"data_offsets":[0,4]}}),
          ~s({"a":#{String.duplicate("[", 60_000)}),
          ~s({"a":1e#{number}}),
          "{" <> Enum.map_join(1..6_000, ",", &~s("#{&1}":1)) <> "}",
          "{" <> String.duplicate(" ", 60_000)
        ] do
      assert byte_size(header) < 65_536
      assert {:error, _why} = answer(file(header, "1234"))
    end
  end

  test "what fuzzing found" do
    files = Path.wildcard(Path.expand("../../../native/fuzz/regressions/voice/*", __DIR__))
    assert files != []

    for path <- files do
      bytes = File.read!(path)
      answer(bytes)
      _voice_or_error = Saved.parse(bytes)
    end
  end

  defp changed(""), do: <<0>>

  defp changed(bytes) do
    size = byte_size(bytes)
    at = :rand.uniform(size) - 1
    <<before::binary-size(at), byte, rest::binary>> = bytes

    case :rand.uniform(5) do
      1 -> <<before::binary, Bitwise.bxor(byte, Bitwise.bsl(1, :rand.uniform(8) - 1)), rest::binary>>
      2 -> <<before::binary, :rand.uniform(256) - 1, rest::binary>>
      3 -> <<before::binary, rest::binary>>
      4 -> <<before::binary, byte, :rand.uniform(256) - 1, rest::binary>>
      5 -> binary_part(bytes, 0, max(at, 1))
    end
  end

  # A value put at a random place of a structure.
  defp planted(%{} = map, value) do
    key = Enum.random(Map.keys(map))

    case :rand.uniform(4) do
      1 -> Map.put(map, key, value)
      2 -> Map.put(map, text(), value)
      _deeper -> Map.update!(map, key, &planted(&1, value))
    end
  end

  defp planted([_ | _] = list, value), do: List.replace_at(list, :rand.uniform(length(list)) - 1, value)
  defp planted(_leaf, value), do: value

  defp value do
    Enum.random([
      nil,
      true,
      -1,
      0,
      16,
      Bitwise.bsl(1, 64),
      -Bitwise.bsl(1, 200),
      1.5,
      "",
      text(),
      [],
      [nil],
      [0, Bitwise.bsl(1, 63)],
      %{},
      %{text() => text()},
      %{"dtype" => "F32", "shape" => [], "data_offsets" => [0, 4]},
      %{"dtype" => "F64", "shape" => [0], "data_offsets" => [8, 8]}
    ])
  end

  defp text,
    do:
      Enum.random([
        "dtype",
        "shape",
        "data_offsets",
        "__metadata__",
        "F32",
        "sha256",
        "name",
        "é\u0000",
        "\u{10FFFF}"
      ])
end
