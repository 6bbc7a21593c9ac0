defmodule Chatterbex.HTTP.Multipart do
  @moduledoc false
  # The body of a form with files (multipart/form-data, RFC 7578) as a map: strings, and `{:file, bytes}` for files.
  #
  # The name of a file does not matter and is not kept. The parts are slices of the body, not copies.

  @max_parts 20
  @max_head 4_096

  @type value :: String.t() | {:file, binary}

  @doc """
  The boundary in the type of a body; `:error` if the body is not such a form.
  """
  @spec boundary(String.t() | nil) :: {:ok, String.t()} | :error
  def boundary(nil), do: :error

  def boundary(type) do
    with [kind, parameters] <- :binary.split(type, ";"),
         "multipart/form-data" <- kind |> String.downcase(:ascii) |> String.trim(" "),
         {:ok, boundary} <- parameter(";" <> parameters, "boundary"),
         true <- byte_size(boundary) in 1..70 do
      {:ok, boundary}
    else
      _other -> :error
    end
  end

  @doc """
  The fields of the form; otherwise what is wrong with it.
  """
  @spec parse(binary, String.t()) :: {:ok, %{String.t() => value}} | {:error, String.t()}
  def parse(body, boundary) do
    # The first delimiter may be the first line.
    case :binary.split(body, "--" <> boundary) do
      [preamble, rest] when preamble == "" or binary_part(preamble, byte_size(preamble), -2) == "\r\n" ->
        parts(rest, "\r\n--" <> boundary, %{})

      _none ->
        {:error, "the boundary that the Content-Type names is not in it"}
    end
  end

  defp parts("--" <> _epilogue, _delimiter, fields), do: {:ok, fields}

  defp parts(_rest, _delimiter, fields) when map_size(fields) >= @max_parts,
    do: {:error, "it has more than #{@max_parts} parts"}

  defp parts("\r\n" <> rest, delimiter, fields) do
    with {:ok, head, rest} <- head(rest),
         {:ok, name, file?} <- disposition(head),
         [content, rest] <- :binary.split(rest, delimiter),
         {:ok, value} <- value(content, file?, name) do
      if Map.has_key?(fields, name),
        do: {:error, "the field #{inspect(name)} is in it twice"},
        else: parts(rest, delimiter, Map.put(fields, name, value))
    else
      {:error, why} -> {:error, why}
      [_unended] -> {:error, "it ends within a part"}
    end
  end

  defp parts(_rest, _delimiter, _fields), do: {:error, "a boundary is malformed"}

  defp head(bytes) do
    case :binary.match(bytes, "\r\n\r\n", scope: {0, min(byte_size(bytes), @max_head)}) do
      {at, 4} ->
        <<head::binary-size(at), _end::32, rest::binary>> = bytes
        {:ok, :binary.split(head, "\r\n", [:global]), rest}

      :nomatch ->
        {:error, "the headers of a part are missing or too large"}
    end
  end

  defp disposition(lines) do
    with line when line != nil <- Enum.find(lines, &disposition?/1),
         {:ok, name} when name != "" <- parameter(line, "name"),
         true <- byte_size(name) <= 100 and String.valid?(name) do
      {:ok, name, parameter(line, "filename") != :error or parameter(line, "filename*") != :error}
    else
      _other -> {:error, "a part does not say which field it is"}
    end
  end

  defp disposition?(line), do: line =~ ~r/\Acontent-disposition:\s*form-data\s*;/i

  # Quoted or not. Browsers write `%22` for a quotation mark within, so a backslash has no special meaning.
  defp parameter(text, name) do
    case Regex.run(~r/;\s*#{Regex.escape(name)}=(?:"([^"]*)"|([^\s;"]+))/i, text, capture: :all_but_first) do
      nil -> :error
      captured -> {:ok, List.last(captured)}
    end
  end

  defp value(content, true, _name), do: {:ok, {:file, content}}

  defp value(content, false, name) do
    if String.valid?(content),
      do: {:ok, content},
      else: {:error, "the field #{inspect(name)} is not UTF-8"}
  end
end
