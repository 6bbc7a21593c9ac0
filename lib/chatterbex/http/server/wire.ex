defmodule Chatterbex.HTTP.Server.Wire do
  @moduledoc false
  # HTTP/1 as bytes: heads of requests to read, heads of responses to write. No process, no socket.
  #
  # Ambiguous input is refused, because a proxy in front may read it differently.

  alias Chatterbex.HTTP.Response

  @type head :: %{
          method: String.t(),
          target: String.t(),
          version: {1, 0 | 1},
          headers: [{String.t(), String.t()}],
          keep: boolean,
          continue: boolean,
          body: {:length, non_neg_integer} | :chunked
        }

  @max_headers 100

  @reasons %{
    200 => "OK",
    204 => "No Content",
    400 => "Bad Request",
    401 => "Unauthorized",
    403 => "Forbidden",
    404 => "Not Found",
    405 => "Method Not Allowed",
    408 => "Request Timeout",
    409 => "Conflict",
    413 => "Content Too Large",
    415 => "Unsupported Media Type",
    429 => "Too Many Requests",
    431 => "Request Header Fields Too Large",
    500 => "Internal Server Error",
    503 => "Service Unavailable"
  }

  @doc """
  Reads the head of a request, without the empty line that ends it.
  """
  @spec parse(binary) :: {:ok, head} | {:error, String.t()}
  def parse(bytes) do
    [line | lines] = :binary.split(bytes, "\r\n", [:global])

    with {:ok, method, target, version} <- request_line(line),
         {:ok, headers} <- headers(lines),
         :ok <- host(headers, version),
         {:ok, body} <- body(headers, version) do
      {:ok,
       %{
         method: method,
         target: target,
         version: version,
         headers: headers,
         keep: keep?(headers, version),
         continue: version == {1, 1} and expects?(headers),
         body: body
       }}
    end
  end

  defp request_line(line) do
    with [method, target, version] <- :binary.split(line, " ", [:global]),
         true <- token?(method) and byte_size(method) <= 20,
         true <- target?(target) do
      case version do
        "HTTP/1.1" -> {:ok, method, target, {1, 1}}
        "HTTP/1.0" -> {:ok, method, target, {1, 0}}
        _other -> {:error, "this server speaks HTTP/1.1"}
      end
    else
      _malformed -> {:error, "the request line is malformed"}
    end
  end

  defp headers(lines) when length(lines) > @max_headers,
    do: {:error, "there are more than #{@max_headers} headers"}

  defp headers(lines) do
    Enum.reduce_while(lines, {:ok, []}, fn line, {:ok, headers} ->
      with [name, value] <- :binary.split(line, ":"),
           true <- token?(name),
           value = trim(value),
           true <- value?(value) do
        {:cont, {:ok, [{String.downcase(name, :ascii), value} | headers]}}
      else
        _malformed -> {:halt, {:error, "a header is malformed"}}
      end
    end)
    |> case do
      {:ok, headers} -> {:ok, Enum.reverse(headers)}
      error -> error
    end
  end

  defp host(headers, version) do
    case {values(headers, "host"), version} do
      {[_host], _version} -> :ok
      {[], {1, 0}} -> :ok
      _none_or_many -> {:error, "there must be one Host header"}
    end
  end

  defp body(headers, version) do
    case {values(headers, "transfer-encoding"), values(headers, "content-length")} do
      {[], []} -> {:ok, {:length, 0}}
      {[], [length]} -> content_length(length)
      {[coding], []} when version == {1, 1} -> coding(String.downcase(coding, :ascii))
      _both_or_many -> {:error, "the length of the body is given in more than one way"}
    end
  end

  defp content_length(text) do
    if text != "" and byte_size(text) <= 15 and digits?(text),
      do: {:ok, {:length, String.to_integer(text)}},
      else: {:error, "Content-Length must be a number"}
  end

  defp coding("chunked"), do: {:ok, :chunked}
  defp coding(_other), do: {:error, "Transfer-Encoding must be chunked"}

  defp keep?(headers, version) do
    options =
      headers |> values("connection") |> Enum.flat_map(&String.split(String.downcase(&1, :ascii), [",", " "]))

    version == {1, 1} and "close" not in options
  end

  defp expects?(headers),
    do: headers |> values("expect") |> Enum.any?(&(String.downcase(&1, :ascii) == "100-continue"))

  defp values(headers, name), do: for({^name, value} <- headers, do: value)

  @doc """
  The path and the query of a request's target.
  """
  @spec path(String.t()) :: {String.t(), String.t()}
  def path(target) do
    # Requests to a proxy have a complete URL.
    origin =
      case Regex.run(~r{\Ahttps?://[^/?]*(.*)\z}i, target) do
        [_all, "/" <> _path = rest] -> rest
        [_all, rest] -> "/" <> rest
        nil -> target
      end

    case :binary.split(origin, "?") do
      [path, query] -> {path, query}
      [path] -> {path, ""}
    end
  end

  @doc """
  Takes a chunk off the beginning of a body: its data, or `:more` if it is incomplete.
  """
  @spec chunk(binary, non_neg_integer) ::
          {:data, binary, binary} | {:last, binary} | :more | :too_large | {:error, String.t()}
  def chunk(bytes, max) do
    case :binary.split(bytes, "\r\n") do
      [line, rest] ->
        with {:ok, size} <- chunk_size(line), do: chunk_data(size, rest, max)

      [line] when byte_size(line) > 256 ->
        {:error, "a chunk is malformed"}

      _incomplete ->
        :more
    end
  end

  # Extensions are skipped.
  defp chunk_size(line) do
    digits = line |> :binary.split(";") |> hd() |> trim()

    if digits =~ ~r/\A[0-9a-fA-F]{1,12}\z/,
      do: {:ok, String.to_integer(digits, 16)},
      else: {:error, "a chunk is malformed"}
  end

  defp chunk_data(size, _rest, max) when size > max, do: :too_large

  # Headers after the body are not supported.
  defp chunk_data(0, "\r\n" <> rest, _max), do: {:last, rest}
  defp chunk_data(0, rest, _max) when byte_size(rest) < 2, do: :more
  defp chunk_data(0, _trailers, _max), do: {:error, "headers after the body are not supported"}

  defp chunk_data(size, rest, _max) do
    case rest do
      <<data::binary-size(size), "\r\n", rest::binary>> -> {:data, data, rest}
      <<_data::binary-size(size), _other::16, _rest::binary>> -> {:error, "a chunk is malformed"}
      _incomplete -> :more
    end
  end

  @doc """
  The head of a response with a body of that length, or of one that is sent in chunks.
  """
  @spec head(Response.t(), map, non_neg_integer | :stream) :: iodata
  def head(%Response{status: status, headers: headers}, request, length) do
    framing =
      case {length, request.version} do
        {:stream, {1, 1}} -> "transfer-encoding: chunked\r\n"
        {:stream, _closing} -> ""
        _length when status == 204 -> ""
        {length, _version} -> "content-length: #{length}\r\n"
      end

    [
      "HTTP/1.1 #{status} #{Map.get(@reasons, status, "Status")}\r\n",
      Calendar.strftime(DateTime.utc_now(), "date: %a, %d %b %Y %H:%M:%S GMT\r\n"),
      for({name, value} <- headers, do: [name, ": ", value, "\r\n"]),
      framing,
      if(request.keep, do: "connection: keep-alive\r\n", else: "connection: close\r\n"),
      "\r\n"
    ]
  end

  defp token?(text), do: text =~ ~r/\A[!#$%&'*+\-.^_`|~0-9A-Za-z]+\z/
  defp target?(target), do: target =~ ~r/\A[\x21-\x7e]+\z/
  # No control characters except the tab; bytes beyond ASCII are accepted.
  defp value?(value), do: value =~ ~r/\A[\t\x20-\x7e\x80-\xff]*\z/
  defp digits?(text), do: text =~ ~r/\A[0-9]+\z/

  defp trim(text), do: text |> :binary.bin_to_list() |> trim_list() |> :binary.list_to_bin()

  defp trim_list(bytes) do
    space? = &(&1 in [?\s, ?\t])
    bytes |> Enum.drop_while(space?) |> Enum.reverse() |> Enum.drop_while(space?) |> Enum.reverse()
  end
end
