# Many concurrent clients of the HTTP interface, some of which hang up:
#
#     mix run bench/http.exs [REQUESTS] [AT_ONCE] [FORMATS]
#
# FORMATS is a list such as mp3,wav (default: all); the requests use them in turn. Every tenth client hangs up after its
# first bytes. Every other answer is compared byte by byte with the answer to the same request alone. The time to the first
# byte is compared with the engine's own first chunk, one request at a time.

Code.require_file("support.exs", __DIR__)

defmodule Bench.HTTP do
  @timeout 300_000

  def request(text, seed, format) do
    body = ~s({"input": "#{text}", "response_format": "#{format}", "seed": #{seed}})

    "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n" <>
      "Content-Length: #{byte_size(body)}\r\n\r\n" <> body
  end

  def connect(port) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, nodelay: true])
    socket
  end

  @doc "The audio of the answer."
  def speak(port, request) do
    socket = connect(port)
    :ok = :gen_tcp.send(socket, request)
    ["HTTP/1.1 200 OK" <> _head, body] = socket |> all([]) |> :binary.split("\r\n\r\n")
    chunks(body, [])
  end

  @doc "Hangs up after the first bytes."
  def hang_up(port, request) do
    socket = connect(port)
    :ok = :gen_tcp.send(socket, request)
    {:ok, "HTTP/1.1 200 OK" <> _rest} = :gen_tcp.recv(socket, 0, @timeout)
    :gen_tcp.close(socket)
  end

  @doc "Waits for the first byte of audio."
  def first(port, request) do
    socket = connect(port)
    :ok = :gen_tcp.send(socket, request)
    until_audio(socket, "")
    :gen_tcp.close(socket)
  end

  @doc "Waits until a process gets the engine's first chunk, and kills it, as happens to a request that ends."
  def first_chunk(server, text) do
    caller = self()

    consumer =
      spawn(fn ->
        server
        |> Chatterbex.stream(text, seed: 1)
        |> Enum.each(fn _chunk ->
          send(caller, :first)
          receive(do: (:never -> :ok))
        end)
      end)

    receive(do: (:first -> Process.exit(consumer, :kill)))
  end

  defp until_audio(socket, bytes) do
    with {at, 4} <- :binary.match(bytes, "\r\n\r\n"), true <- byte_size(bytes) > at + 10 do
      :ok
    else
      _head ->
        {:ok, more} = :gen_tcp.recv(socket, 0, @timeout)
        until_audio(socket, bytes <> more)
    end
  end

  defp all(socket, parts) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, bytes} -> all(socket, [parts, bytes])
      {:error, :closed} -> IO.iodata_to_binary(parts)
    end
  end

  defp chunks(bytes, parts) do
    [size, rest] = :binary.split(bytes, "\r\n")
    size = String.to_integer(size, 16)
    <<data::binary-size(size), "\r\n", rest::binary>> = rest
    if size == 0, do: IO.iodata_to_binary(parts), else: chunks(rest, [parts, data])
  end

  def resident do
    {kilobytes, 0} = System.cmd("ps", ["-o", "rss=", "-p", System.pid()])
    div(kilobytes |> String.trim() |> String.to_integer(), 1024)
  end
end

alias Bench.HTTP

[requests, at_once, formats] = Bench.arguments([1000, 50, "mp3,opus,flac,wav,pcm"])
formats = String.split(formats, ",")

Bench.title(
  "The HTTP interface: #{requests} requests, #{at_once} at once, every tenth hangs up (#{Enum.join(formats, ", ")})"
)

server = Bench.start(:hibari)

{:ok, web} =
  Chatterbex.HTTP.Server.start_link(
    server: server,
    port: 0,
    unknown_fields: :pass,
    max_requests: at_once + 10,
    timeout: 600_000
  )

port = Chatterbex.HTTP.Server.port(web)

# No common factor with the ten of every tenth client, so that each sentence is also answered.
sentences = 7

alone =
  for n <- 0..(sentences - 1), {format, at} <- Enum.with_index(formats), into: %{} do
    request = HTTP.request("This is sentence number #{n}.", n, format)
    {{n, at}, {request, HTTP.speak(port, request)}}
  end

warm = HTTP.resident()
first = :counters.new(3, [])

1..requests
|> Task.async_stream(
  fn number ->
    {request, audio} = alone[{rem(number, sentences), rem(div(number, sentences), length(formats))}]

    cond do
      rem(number, 10) == 0 -> HTTP.hang_up(port, request) && :counters.add(first, 1, 1)
      HTTP.speak(port, request) == audio -> :counters.add(first, 2, 1)
      true -> :counters.add(first, 3, 1)
    end

    if rem(number, div(requests, 4)) == 0, do: IO.puts("  after #{number}: #{HTTP.resident()} MB")
  end,
  max_concurrency: at_once,
  timeout: :infinity,
  ordered: false
)
|> Enum.each(fn {:ok, _done} -> :ok end)

Bench.row("hung up", :counters.get(first, 1))
Bench.row("answered right", :counters.get(first, 2))
Bench.row("answered wrong", :counters.get(first, 3))
Bench.row("lost", requests - Enum.sum(for n <- 1..3, do: :counters.get(first, n)))
Bench.row("memory before, and now", "#{warm} MB, #{HTTP.resident()} MB")
{:ok, %{queue: %{open: open}}} = Chatterbex.info(server: server)
Bench.row("requests left open", open)

text = "The quick brown fox jumps over the lazy dog. And once more."
request = HTTP.request(text, 1, "pcm")

times =
  Bench.pairs(
    [
      http: fn -> HTTP.first(port, request) end,
      engine: fn -> HTTP.first_chunk(server, text) end
    ],
    50
  )

Bench.row("first byte over HTTP", Bench.ms(times.http))
Bench.row("first chunk of the engine", Bench.ms(times.engine))
Bench.row("HTTP - engine", Bench.ms(times.http - times.engine))

Supervisor.stop(web)
GenServer.stop(server)
