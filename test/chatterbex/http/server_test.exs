defmodule Chatterbex.HTTP.ServerTest do
  use ExUnit.Case, async: true

  import Chatterbex.HTTPClient
  import Chatterbex.TestHelp, only: [start_fake: 1, await_held: 2, await_idle: 1]

  alias Chatterbex.HTTP.Server

  defp serve(options) do
    start_supervised!({Server, Keyword.merge([port: 0], options)}, id: System.unique_integer())
  end

  setup context do
    speech = start_fake(context[:speech] || [])
    {:ok, speech: speech, web: serve([server: speech] ++ (context[:web] || []))}
  end

  test "speech is answered, and the connection kept for the next request", %{web: web} do
    socket = connect(web)

    for _request <- 1..3 do
      :ok = :gen_tcp.send(socket, speech([input: "Hello.", response_format: "pcm"], keep: true))
      assert {200, %{"content-type" => "audio/pcm", "connection" => "keep-alive"}, body} = answer(socket)
      assert byte_size(body) == 2 * byte_size("Hello.")
    end
  end

  # Reads one chunked answer off a connection that stays open.
  defp answer(socket, bytes \\ "") do
    if String.ends_with?(bytes, "\r\n0\r\n\r\n") do
      parse(bytes)
    else
      {:ok, more} = :gen_tcp.recv(socket, 0, 30_000)
      answer(socket, bytes <> more)
    end
  end

  test "pipelined requests get their answers in order", %{web: web} do
    first = speech([input: "One.", response_format: "pcm"], keep: true)
    all = raw(web, first <> speech(input: "Three.", response_format: "pcm"))
    [one, three] = :binary.split(all, "0\r\n\r\nHTTP/1.1")
    assert {200, _headers, body} = parse(one <> "0\r\n\r\n")
    assert byte_size(body) == 8
    assert {200, _headers, body} = parse("HTTP/1.1" <> three)
    assert byte_size(body) == 12
  end

  test "HTTP/1.0 gets an answer that is not chunked", %{web: web} do
    bytes = [input: "Hello.", response_format: "pcm"] |> speech() |> String.replace("HTTP/1.1", "HTTP/1.0")
    assert {200, headers, body} = web |> raw(bytes) |> parse()
    refute Map.has_key?(headers, "transfer-encoding")
    assert byte_size(body) == 12
  end

  test "a chunked body is read", %{web: web} do
    body = ~s({"input": "Hello.", "response_format": "pcm"})
    <<one::binary-size(10), two::binary>> = body

    bytes =
      "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n" <>
        "Transfer-Encoding: chunked\r\n\r\n" <>
        "A;name=value\r\n#{one}\r\n#{Integer.to_string(byte_size(two), 16)}\r\n#{two}\r\n0\r\n\r\n"

    assert {200, _headers, audio} = web |> raw(bytes) |> parse()
    assert byte_size(audio) == 12
  end

  test "a client that expects 100 Continue gets it", %{web: web} do
    socket = connect(web)
    [head, body] = [input: "Hello.", response_format: "pcm"] |> speech() |> :binary.split("\r\n\r\n")
    :ok = :gen_tcp.send(socket, head <> "\r\nExpect: 100-continue\r\n\r\n")
    assert {:ok, "HTTP/1.1 100 Continue\r\n\r\n"} = :gen_tcp.recv(socket, 25, 30_000)
    :ok = :gen_tcp.send(socket, body)
    assert {:ok, "HTTP/1.1 200 OK" <> _more} = :gen_tcp.recv(socket, 0, 30_000)
  end

  test "a client that hangs up ends the work, before and after the first audio", %{web: web, speech: speech} do
    socket = connect(web)
    :ok = :gen_tcp.send(socket, speech(input: "hold", response_format: "pcm"))
    await_held(speech, 1)
    :gen_tcp.close(socket)
    await_held(speech, 0)
    await_idle(speech)

    socket = connect(web)
    :ok = :gen_tcp.send(socket, speech(input: "Hello.\n\nhold", response_format: "pcm"))
    assert {:ok, "HTTP/1.1 200 OK" <> _rest} = :gen_tcp.recv(socket, 0, 30_000)
    await_held(speech, 1)
    :gen_tcp.close(socket)
    await_held(speech, 0)
    await_idle(speech)
  end

  @tag web: [max_requests: 1]
  test "requests above the limit are refused, and the server continues", %{
    web: web,
    speech: speech
  } do
    socket = connect(web)
    :ok = :gen_tcp.send(socket, speech(input: "hold"))
    await_held(speech, 1)

    assert {429, %{"retry-after" => _seconds}, _body} =
             refused = web |> raw(speech(input: "Hello.")) |> parse()

    assert %{type: "rate_limit_error", code: "overloaded"} = error(refused)
    assert {200, _headers, _body} = request(web, "GET", "/health")

    :gen_tcp.close(socket)
    await_held(speech, 0)
    await_idle(speech)
    assert {200, _headers, _body} = eventually_served(web)
  end

  # The place of the cancelled request is free a moment after its work ends.
  defp eventually_served(web) do
    case web |> raw(speech(input: "Hello.")) |> parse() do
      {429, _headers, _body} -> eventually_served(web)
      answer -> answer
    end
  end

  @tag speech: [max_queue: 0, max_batch: 1]
  test "a full queue is 429 with Retry-After", %{web: web, speech: speech} do
    socket = connect(web)
    :ok = :gen_tcp.send(socket, speech(input: "hold"))
    await_held(speech, 1)
    assert {429, %{"retry-after" => "2"}, _body} = web |> raw(speech(input: "Hello.")) |> parse()
    :gen_tcp.close(socket)
  end

  @tag web: [max_connections: 1]
  test "a connection above the limit is refused", %{web: web} do
    socket = connect(web)
    :ok = :gen_tcp.send(socket, bytes("GET", "/health", keep: true))
    assert {:ok, "HTTP/1.1 200 OK" <> _rest} = :gen_tcp.recv(socket, 0, 30_000)
    assert {503, %{"retry-after" => _seconds}, _body} = web |> raw("") |> parse()
  end

  @tag web: [read_timeout: 200]
  test "a request that does not end is answered with 408, even if it trickles", %{web: web} do
    assert {408, _headers, _body} = web |> raw("GET /health HT") |> parse()

    assert {408, _headers, _body} =
             web |> raw("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc") |> parse()
  end

  @tag web: [idle_timeout: 100]
  test "a connection without a request is closed", %{web: web} do
    assert raw(web, "") == ""
  end

  @tag web: [request_timeout: 300]
  test "a request that takes too long is given up", %{web: web, speech: speech} do
    assert {503, _headers, _body} = web |> raw(speech(input: "hold")) |> parse()
    await_held(speech, 0)

    assert {200, _headers, {:incomplete, audio}} =
             web |> raw(speech(input: "Hello.\n\nhold", response_format: "pcm")) |> parse()

    assert byte_size(audio) > 0
    await_idle(speech)
  end

  test "speech that fails after its first audio leaves the body unfinished", %{web: web} do
    assert {200, _headers, {:incomplete, audio}} =
             web |> raw(speech(input: "Hello.\n\nfail", response_format: "pcm")) |> parse()

    assert byte_size(audio) > 0
  end

  test "anything that is not HTTP is refused", %{web: web} do
    for bytes <- [
          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
          "GET /health\r\n\r\n",
          "GET /health HTTP/1.1\r\n\r\n",
          "GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
          "GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
          "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
          "GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
          "GET /health HTTP/1.1\r\nHost: x\r\nName : y\r\n\r\n",
          "GET /health HTTP/1.1\r\nHost: x\r\nName: a\0b\r\n\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
          "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
          "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
          "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
          "POST /health HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
          "GET /health HTTP/1.1\r\nHost: x\r\n" <> String.duplicate("A: b\r\n", 101) <> "\r\n"
        ] do
      assert {400, %{"connection" => "close"}, _body} = answer = web |> raw(bytes) |> parse()
      assert %{type: "invalid_request_error"} = error(answer), inspect(bytes)
    end

    assert {200, _headers, _body} = request(web, "GET", "/health")
  end

  test "requests that are too large are refused, and the refusal arrives", %{web: web} do
    assert {431, _headers, _body} = web |> raw("GET /" <> String.duplicate("a", 20_000)) |> parse()
    large = String.duplicate(" ", 300_000)
    assert {413, _headers, _body} = web |> raw(bytes("POST", "/v1/audio/speech", body: large)) |> parse()

    chunked = "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40001\r\n"
    assert {413, _headers, _body} = web |> raw(chunked) |> parse()
  end

  test "HEAD returns the length and no body", %{web: web} do
    assert {200, %{"content-length" => length, "date" => date}, ""} = request(web, "HEAD", "/health")
    assert date =~ ~r/^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/
    assert String.to_integer(length) > 0
  end

  test "a stopping server finishes requests and closes idle connections", %{speech: speech} do
    {:ok, web} = Server.start_link(server: speech, port: 0)
    idle = connect(web)
    :ok = :gen_tcp.send(idle, bytes("GET", "/health", keep: true))
    {:ok, _answer} = :gen_tcp.recv(idle, 0, 30_000)

    busy = connect(web)
    :ok = :gen_tcp.send(busy, speech([input: "hold", response_format: "pcm"], keep: true))
    await_held(speech, 1)
    stopping = Task.async(fn -> Supervisor.stop(web) end)

    assert {:error, :closed} = :gen_tcp.recv(idle, 0, 30_000)
    refute Task.yield(stopping, 0)
    Chatterbex.TestHelp.call_model(speech, "release")
    assert {200, %{"connection" => "close"}, _audio} = answer(busy)
    assert :ok = Task.await(stopping, 30_000)
  end

  test "a port that is taken is an error", %{web: web, speech: speech} do
    Process.flag(:trap_exit, true)

    assert {:error,
            {:shutdown, {:failed_to_start_child, _listener, {:not_listening, _ip, _port, :eaddrinuse}}}} =
             Server.start_link(server: speech, port: Server.port(web))
  end
end
