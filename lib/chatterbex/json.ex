defmodule Chatterbex.JSON do
  @moduledoc false
  # JSON for small files and requests: OTP has none before 27, and no Hex package may be needed.
  #
  # All versions run this code. The built-in `JSON` and `:json` bound neither the depth nor the digits of a number, which
  # matters for requests from strangers; they do not quote the text that is wrong; and they do not write sorted keys over
  # several lines. With them there would be two paths that must agree, until OTP 27 is the oldest supported version.
  #
  # Objects are maps with binary keys, null is nil. Only UTF-8 strings, numbers, booleans, nil, lists and
  # maps can be written; atoms other than those are written as strings.

  @max_depth 100

  # The work to read a number grows with the square of its digits.
  @max_digits 1_000

  @doc """
  Reads one JSON value.

      iex> Chatterbex.JSON.decode(~s({"a": [1, 2.5, null]}))
      {:ok, %{"a" => [1, 2.5, nil]}}

      iex> Chatterbex.JSON.decode("{")
      {:error, "unexpected end"}
  """
  @spec decode(binary) :: {:ok, term} | {:error, String.t()}
  def decode(binary) when is_binary(binary) do
    {value, rest} = value(space(binary), 0)

    case space(rest) do
      "" -> {:ok, value}
      rest -> {:error, unexpected(rest)}
    end
  catch
    {:json, message} -> {:error, message}
  end

  @doc """
  Writes a value over several lines, keys in order, so that equal values give equal files.

  Raises `ArgumentError` if a string is not valid UTF-8.

      iex> Chatterbex.JSON.encode(%{b: 1, a: []})
      ~s({\\n  "a": [],\\n  "b": 1\\n})
  """
  @spec encode(term) :: String.t()
  def encode(value), do: IO.iodata_to_binary(write(value, "\n"))

  # Reading

  defp value(_binary, depth) when depth > @max_depth, do: throw({:json, "nested too deep"})
  defp value(<<?", rest::binary>>, _depth), do: string(rest, [])
  defp value(<<?{, rest::binary>>, depth), do: object(space(rest), depth + 1)
  defp value(<<?[, rest::binary>>, depth), do: array(space(rest), depth + 1)
  defp value(<<"true", rest::binary>>, _depth), do: {true, rest}
  defp value(<<"false", rest::binary>>, _depth), do: {false, rest}
  defp value(<<"null", rest::binary>>, _depth), do: {nil, rest}
  defp value(binary, _depth), do: number(binary)

  defp object(<<?}, rest::binary>>, _depth), do: {%{}, rest}
  defp object(binary, depth), do: members(binary, depth, %{})

  defp members(<<?", rest::binary>>, depth, members) do
    {key, rest} = string(rest, [])

    {value, rest} =
      case space(rest) do
        <<?:, rest::binary>> -> value(space(rest), depth)
        rest -> throw({:json, unexpected(rest)})
      end

    members = Map.put(members, key, value)

    case space(rest) do
      <<?,, rest::binary>> -> members(space(rest), depth, members)
      <<?}, rest::binary>> -> {members, rest}
      rest -> throw({:json, unexpected(rest)})
    end
  end

  defp members(rest, _depth, _members), do: throw({:json, unexpected(rest)})

  defp array(<<?], rest::binary>>, _depth), do: {[], rest}
  defp array(binary, depth), do: elements(binary, depth, [])

  defp elements(binary, depth, elements) do
    {value, rest} = value(binary, depth)

    case space(rest) do
      <<?,, rest::binary>> -> elements(space(rest), depth, [value | elements])
      <<?], rest::binary>> -> {Enum.reverse([value | elements]), rest}
      rest -> throw({:json, unexpected(rest)})
    end
  end

  defp string(<<?", rest::binary>>, parts), do: {parts |> Enum.reverse() |> IO.iodata_to_binary(), rest}
  defp string(<<?\\, ?u, rest::binary>>, parts), do: unicode(rest, parts)

  for {escaped, character} <-
        [{?", ?"}, {?\\, ?\\}, {?/, ?/}, {?b, ?\b}, {?f, ?\f}, {?n, ?\n}] ++ [{?r, ?\r}, {?t, ?\t}] do
    defp string(<<?\\, unquote(escaped), rest::binary>>, parts),
      do: string(rest, [unquote(character) | parts])
  end

  defp string(<<character::utf8, rest::binary>>, parts) when character >= 0x20 and character != ?\\,
    do: string(rest, [<<character::utf8>> | parts])

  defp string(rest, _parts), do: throw({:json, unexpected(rest)})

  defp unicode(binary, parts) do
    case hex(binary) do
      {high, <<?\\, ?u, rest::binary>>} when high in 0xD800..0xDBFF ->
        case hex(rest) do
          {low, rest} when low in 0xDC00..0xDFFF ->
            string(rest, [<<0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00::utf8>> | parts])

          _no_pair ->
            throw({:json, "half of a surrogate pair"})
        end

      {lone, _rest} when lone in 0xD800..0xDFFF ->
        throw({:json, "half of a surrogate pair"})

      {character, rest} ->
        string(rest, [<<character::utf8>> | parts])
    end
  end

  defp hex(<<digits::binary-size(4), rest::binary>>) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, <<number::16>>} -> {number, rest}
      :error -> throw({:json, "unexpected #{inspect(digits)} after \\u"})
    end
  end

  defp hex(_binary), do: throw({:json, "unexpected end"})

  defp number(binary) do
    case Regex.run(~r/\A-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/, binary) do
      nil ->
        throw({:json, unexpected(binary)})

      [text | _fraction] when byte_size(text) > @max_digits ->
        throw({:json, "a number of #{byte_size(text)} digits"})

      [digits] ->
        {String.to_integer(digits), after_number(binary, digits)}

      [text | _fraction] ->
        {float(text), after_number(binary, text)}
    end
  end

  defp float(text) do
    case Float.parse(text) do
      {float, ""} -> float
      _no_float -> throw({:json, "number out of range: #{text}"})
    end
  rescue
    ArgumentError -> throw({:json, "number out of range: #{text}"})
  end

  defp after_number(binary, text),
    do: binary_part(binary, byte_size(text), byte_size(binary) - byte_size(text))

  defp space(<<character, rest::binary>>) when character in [?\s, ?\t, ?\r, ?\n], do: space(rest)
  defp space(binary), do: binary

  defp unexpected(""), do: "unexpected end"
  defp unexpected(rest), do: "unexpected #{inspect(binary_part(rest, 0, min(byte_size(rest), 20)))}"

  # Writing

  defp write(value, _line) when value in [nil, true, false],
    do: if(is_nil(value), do: "null", else: "#{value}")

  defp write(value, line) when is_atom(value), do: write(Atom.to_string(value), line)
  defp write(value, _line) when is_integer(value) or is_float(value), do: to_string(value)
  defp write(value, _line) when is_binary(value), do: [?", escape(value), ?"]
  defp write([], _line), do: "[]"
  defp write(value, _line) when value == %{}, do: "{}"

  defp write(value, line) when is_list(value) do
    inner = line <> "  "
    [?[, Enum.map_intersperse(value, ",", &[inner, write(&1, inner)]), line, ?]]
  end

  defp write(%{} = value, line) do
    inner = line <> "  "
    members = value |> Map.new(fn {key, member} -> {to_string(key), member} end) |> Enum.sort()
    [?{, Enum.map_intersperse(members, ",", &[inner, member(&1, inner)]), line, ?}]
  end

  defp member({key, value}, line), do: [?", escape(key), "\": ", write(value, line)]

  defp escape(text) do
    if String.valid?(text),
      do: for(<<character::utf8 <- text>>, do: escaped(character)),
      else: raise(ArgumentError, "#{inspect(text)} is not valid UTF-8, and JSON can hold nothing else")
  end

  defp escaped(?"), do: "\\\""
  defp escaped(?\\), do: "\\\\"
  defp escaped(?\n), do: "\\n"
  defp escaped(?\t), do: "\\t"

  defp escaped(character) when character < 0x20,
    do: ["\\u", character |> Integer.to_string(16) |> String.pad_leading(4, "0")]

  defp escaped(character), do: <<character::utf8>>
end
