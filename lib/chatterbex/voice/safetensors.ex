defmodule Chatterbex.Voice.Safetensors do
  @moduledoc false
  # The safetensors format, which holds numbers and no code: eight bytes with the length of a header, the header (JSON:
  # where each tensor is, and marks, which are strings), then the tensors, one after another.
  #
  # Everything in the header is checked against the contents before anything else uses the file.

  alias Chatterbex.JSON

  @max_header 65_536
  @max_tensors 64

  @sizes %{
    "BOOL" => 1,
    "U8" => 1,
    "I8" => 1,
    "I16" => 2,
    "U16" => 2,
    "F16" => 2,
    "BF16" => 2,
    "I32" => 4,
    "U32" => 4,
    "F32" => 4,
    "I64" => 8,
    "U64" => 8,
    "F64" => 8
  }

  @seal "sha256"
  @blank String.duplicate("0", 64)

  @type marks :: %{String.t() => String.t()}

  @doc """
  The marks of an intact file; otherwise what is wrong with it, to follow "it".
  """
  @spec marks(binary) :: {:ok, marks} | {:error, String.t()}
  def marks(file) do
    with {:ok, header, data} <- split(file),
         {:ok, entries} <- decode(header),
         {marks, tensors} = Map.pop(entries, "__metadata__", %{}),
         :ok <- strings(marks),
         :ok <- tensors(tensors, byte_size(data)),
         do: {:ok, marks}
  end

  @doc """
  Adds marks to those of an intact file, and seals it: `sealed/1` then finds any byte that changes.
  """
  @spec seal(binary, marks) :: binary
  def seal(file, marks) do
    {:ok, header, data} = split(file)
    {:ok, entries} = decode(header)
    marks = entries |> Map.get("__metadata__", %{}) |> Map.merge(marks) |> Map.put(@seal, @blank)
    header = entries |> Map.put("__metadata__", marks) |> JSON.encode() |> aligned()
    IO.iodata_to_binary([<<byte_size(header)::64-little>>, filled(header, digest(header, data)), data])
  end

  @doc """
  Whether a file with these marks is unchanged since it was sealed.
  """
  @spec sealed(binary, marks) :: :ok | {:error, String.t()}
  def sealed(file, marks) do
    with {:ok, header, data} <- split(file),
         %{@seal => <<seal::binary-size(64)>>} <- marks,
         true <- digest(String.replace(header, seal, @blank), data) == seal do
      :ok
    else
      _other -> {:error, "is damaged: its contents are not those that it was saved with"}
    end
  end

  defp digest(header, data),
    do: :sha256 |> :crypto.hash([header, data]) |> Base.encode16(case: :lower)

  defp filled(header, seal), do: String.replace(header, ~s("#{@blank}"), ~s("#{seal}"))

  # The rest is read as an array of numbers, and must be aligned like one.
  defp aligned(header), do: header <> String.duplicate(" ", Integer.mod(-byte_size(header), 8))

  defp split(<<length::64-little, rest::binary>>) when length <= @max_header do
    case rest do
      <<"{", _more::binary>> when length > byte_size(rest) ->
        {:error, "is cut short"}

      <<header::binary-size(length), data::binary>> when binary_part(header, 0, 1) == "{" ->
        {:ok, header, data}

      _other ->
        {:error, "is not a safetensors file"}
    end
  end

  defp split(<<length::64-little, "{", _rest::binary>>),
    do: {:error, "has a header of #{length} bytes; at most #{@max_header} are read"}

  defp split(_other), do: {:error, "is not a safetensors file"}

  defp decode(header) do
    case JSON.decode(header) do
      {:ok, %{} = entries} -> {:ok, entries}
      {:ok, _other} -> {:error, "has a header that is not an object"}
      {:error, why} -> {:error, "has a header that cannot be read (#{why})"}
    end
  end

  defp strings(%{} = marks) do
    if Enum.all?(marks, fn {_name, value} -> is_binary(value) end),
      do: :ok,
      else: {:error, "has marks that are not strings"}
  end

  defp strings(_other), do: {:error, "has marks that are not strings"}

  defp tensors(tensors, _bytes) when map_size(tensors) > @max_tensors,
    do: {:error, "has #{map_size(tensors)} tensors; at most #{@max_tensors} are read"}

  defp tensors(tensors, bytes) do
    with {:ok, places} <- places(Map.to_list(tensors), []), do: in_a_row(Enum.sort(places), 0, bytes)
  end

  defp places([], places), do: {:ok, places}

  defp places([{name, tensor} | rest], places) do
    case place(tensor) do
      {:ok, place} ->
        places(rest, [place | places])

      :error ->
        {:error, "has a tensor #{inspect(name, printable_limit: 60)} whose place and shape make no sense"}
    end
  end

  defp place(%{"dtype" => dtype, "shape" => shape, "data_offsets" => [from, to]})
       when is_map_key(@sizes, dtype) and is_list(shape) and is_integer(from) and is_integer(to) do
    if Enum.all?(shape, &(is_integer(&1) and &1 >= 0)) and
         to - from == Enum.reduce(shape, @sizes[dtype], &*/2),
       do: {:ok, {from, to}},
       else: :error
  end

  defp place(_other), do: :error

  defp in_a_row([], bytes, bytes), do: :ok

  defp in_a_row([], expected, bytes) when expected < bytes,
    do: {:error, "has more in it than its header says"}

  defp in_a_row([{at, to} | rest], at, bytes) when to <= bytes, do: in_a_row(rest, to, bytes)
  defp in_a_row([{at, to} | _rest], at, bytes) when to > bytes, do: {:error, "is cut short"}
  defp in_a_row(_places, _at, _bytes), do: {:error, "has tensors that overlap or leave gaps"}
end
