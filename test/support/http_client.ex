defmodule Chatterbex.HTTPClient do
  @moduledoc """
  A client of the tests that shows what is really sent: a plain socket.
  """

  @timeout 30_000

  @doc """
  Opens a connection to a `Chatterbex.HTTP.Server`, or to a port of this machine.
  """
  def connect(port) when is_integer(port) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, packet: :raw])
    socket
  end

  def connect(server), do: server |> Chatterbex.HTTP.Server.port() |> connect()

  @doc """
  Sends bytes, and returns all that comes until the server closes the connection.
  """
  def raw(server, bytes) do
    socket = connect(server)
    _ = :gen_tcp.send(socket, bytes)
    all = until_closed(socket, [])
    :gen_tcp.close(socket)
    all
  end

  defp until_closed(socket, parts) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, bytes} -> until_closed(socket, [parts, bytes])
      {:error, reason} when reason in [:closed, :econnreset] -> IO.iodata_to_binary(parts)
    end
  end

  @doc """
  A request as bytes, with `Connection: close` unless `keep: true`.
  """
  def bytes(method, path, options \\ []) do
    body = Keyword.get(options, :body, "")
    headers = [{"Host", "localhost"} | Keyword.get(options, :headers, [])]
    headers = if options[:keep], do: headers, else: headers ++ [{"Connection", "close"}]
    headers = if body == "", do: headers, else: headers ++ [{"Content-Length", "#{byte_size(body)}"}]

    IO.iodata_to_binary([
      "#{method} #{path} HTTP/1.1\r\n",
      for({name, value} <- headers, do: "#{name}: #{value}\r\n"),
      "\r\n",
      body
    ])
  end

  @doc """
  The bytes of a request for speech with these JSON fields.
  """
  def speech(fields, options \\ []) do
    headers = [{"Content-Type", "application/json"} | Keyword.get(options, :headers, [])]
    body = Chatterbex.JSON.encode(Map.new(fields))
    bytes("POST", "/v1/audio/speech", Keyword.merge(options, headers: headers, body: body))
  end

  @doc """
  Sends one request on a connection of its own, and reads the answer.
  """
  def request(server, method, path, options \\ []), do: server |> raw(bytes(method, path, options)) |> parse()

  @doc """
  An answer as `{status, headers, body}`; the body is `{:incomplete, bytes}` where its end is missing.
  """
  def parse(bytes) do
    [head, rest] = :binary.split(bytes, "\r\n\r\n")
    ["HTTP/1.1 " <> <<status::binary-size(3)>> <> _reason | lines] = String.split(head, "\r\n")

    headers =
      for line <- lines, into: %{} do
        [name, value] = String.split(line, ": ", parts: 2)
        {name, value}
      end

    body = if headers["transfer-encoding"] == "chunked", do: chunks(rest, []), else: rest
    {String.to_integer(status), headers, body}
  end

  defp chunks(bytes, parts) do
    with [size, rest] <- :binary.split(bytes, "\r\n"),
         size = String.to_integer(size, 16),
         <<data::binary-size(size), "\r\n", rest::binary>> <- rest do
      if size == 0, do: IO.iodata_to_binary(parts), else: chunks(rest, [parts, data])
    else
      _cut -> {:incomplete, IO.iodata_to_binary(parts)}
    end
  end

  @doc """
  The fields of an error in OpenAI's form, all four of them.
  """
  def error({status, _headers, body}) do
    {:ok, %{"error" => %{"message" => message, "type" => type, "param" => param, "code" => code}}} =
      Chatterbex.JSON.decode(body)

    %{status: status, message: message, type: type, param: param, code: code}
  end
end
