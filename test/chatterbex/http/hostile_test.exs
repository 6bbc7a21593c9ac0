defmodule Chatterbex.HTTP.HostileTest do
  use ExUnit.Case, async: true

  import Chatterbex.HTTPClient, only: [raw: 2, parse: 1, request: 3, bytes: 3, connect: 1]
  import Chatterbex.TestHelp, only: [start_fake: 1, start_server: 1, await_idle: 1, await: 1]

  alias Chatterbex.{Clients, JSON}
  alias Chatterbex.HTTP.Server

  @json {"Content-Type", "application/json"}

  setup_all do
    speech = start_fake(max_queue: 1_000)
    folder = Chatterbex.TestHelp.temporary_path("voices")
    File.mkdir!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    cloner = start_server(model: :turbo, testing: true, voices: folder)

    options = [
      server: speech,
      models: %{"cloner" => cloner},
      add_voices: true,
      port: 0,
      read_timeout: 1_000,
      unknown_fields: :pass
    ]

    {:ok, web: start_supervised!({Server, options}), speech: speech, folder: folder}
  end

  # Values that are unlikely to be expected, in every field.
  defp bodies do
    values = [
      nil,
      true,
      0,
      -1,
      1.0e308,
      -0.0,
      99_999_999_999_999_999_999,
      "",
      " ",
      "\0",
      "\u202E\u200B\uFEFF",
      "../../../etc/passwd",
      "/dev/zero",
      "file:///etc/passwd",
      "'; DROP TABLE voices; --",
      "<script>alert(1)</script>",
      "${jndi:ldap://localhost/a}",
      "%s%n%x",
      String.duplicate("a", 5_000),
      String.duplicate("e\u0301\u0302", 2_000),
      String.duplicate("[laugh]", 500),
      String.duplicate("🎉", 4_096),
      "line\r\nX-Injected: yes",
      [],
      %{},
      [[[[]]]],
      %{"id" => "../x"},
      %{"id" => %{"id" => "x"}}
    ]

    fields =
      ~w(input model voice response_format speed stream_format instructions seed language temperature server timeout __proto__)

    for field <- fields, value <- values do
      %{"input" => "Hi."} |> Map.put(field, value) |> JSON.encode()
    end
  end

  defp malformed do
    [
      "",
      "{",
      "}",
      "{\"input\"",
      "{\"input\": \"",
      "{\"input\": \"\\ud800\"}",
      "{\"input\": \"\\u00",
      "{\"input\": \"a\", \"input\": 1}",
      "{\"input\": \"a\",}",
      "[\"input\"]",
      "\"input\"",
      "{'input': 'a'}",
      <<"{\"input\": \"", 0xFF, 0xFE, "\"}">>,
      <<0xEF, 0xBB, 0xBF, "{\"input\": \"a\"}">>,
      String.duplicate("[", 100_000),
      String.duplicate("{\"a\":", 50_000),
      "{\"speed\": #{String.duplicate("9", 200_000)}}",
      "{\"speed\": 1e#{String.duplicate("9", 1_000)}}",
      "{\"input\": \"" <> String.duplicate("\\u0000", 4_000) <> "\"}",
      "{" <> Enum.map_join(1..5_000, ",", &"\"f#{&1}\": #{&1}") <> "}",
      "[" <> Enum.map_join(1..40_000, ",", &Integer.to_string/1) <> "]",
      :binary.copy(<<0>>, 1_000),
      :rand.bytes(1_000)
    ]
  end

  defp forms do
    part = fn head, value -> "--b\r\nContent-Disposition: form-data; #{head}\r\n\r\n#{value}\r\n" end
    consent = part.(~s(name="consent"), "yes")

    names =
      for name <- [
            "../../x",
            "/etc/passwd",
            ".",
            "..",
            "a\0b",
            "a\r\nb",
            "\u202E",
            <<0xFF>>,
            String.duplicate("a", 9_000)
          ],
          do:
            part.(~s(name="name"), name) <>
              consent <> part.(~s(name="audio_sample"; filename="x"), "RIFF") <> "--b--"

    recordings =
      for recording <- ["", "RIFF", "fLaC", "OggS", <<0xFF, 0xFB, 0x90, 0>>, :rand.bytes(5_000)],
          do:
            part.(~s(name="name"), "ann") <>
              consent <> part.(~s(name="audio_sample"; filename="../../x"), recording) <> "--b--"

    broken = [
      "--b",
      "--b--",
      "--b\r\n\r\n",
      "--b--b--b",
      String.duplicate("--b\r\n", 5_000),
      String.duplicate(consent, 500)
    ]

    names ++ recordings ++ broken
  end

  defp requests do
    paths = [
      "/v1/../../etc/passwd",
      "/v1/audio/speech/",
      "//v1/models",
      "/v1/models/",
      "/v1/models/%00",
      "/v1/models/%2e%2e%2f",
      "/v1/models/" <> String.duplicate("a", 10_000),
      "/v1/audio/voices?model=%",
      "/v1/audio/voices?model=a&model=b",
      "/v1/audio/voices?" <> String.duplicate("a=b&", 2_000),
      "/?x=<script>",
      "http://evil.example/v1/models",
      "*",
      "/%"
    ]

    methods = ~w(GET HEAD POST PUT DELETE OPTIONS TRACE CONNECT PATCH BREW)

    # A form can be wrong in other ways than JSON.
    forms =
      for form <- forms(), path <- ["/v1/audio/voices", "/v1/audio/voices?model=cloner"] do
        bytes("POST", path, headers: [{"Content-Type", "multipart/form-data; boundary=b"}], body: form)
      end

    forms ++
      for(path <- paths, do: bytes("GET", path, [])) ++
      for(method <- methods, do: bytes(method, "/v1/audio/voices", [])) ++
      for(method <- methods, do: bytes(method, "/v1/audio/speech", []))
  end

  test "hundreds of hostile requests: each is answered, none with 5xx, and the server survives", %{
    web: web,
    speech: speech,
    folder: folder
  } do
    listener = Server.port(web)

    hostile =
      for(
        body <- bodies() ++ malformed(),
        do: bytes("POST", "/v1/audio/speech", headers: [@json], body: body)
      ) ++ requests()

    assert length(hostile) > 450

    hostile
    |> Task.async_stream(fn request -> {request, web |> raw(request) |> parse()} end,
      max_concurrency: 20,
      timeout: 60_000
    )
    |> Enum.each(fn {:ok, {request, {status, headers, _body}}} ->
      assert status in [200, 400, 404, 405, 413, 415, 429, 431],
             "#{status} for #{inspect(request, printable_limit: 300)}"

      refute Map.has_key?(headers, "x-injected")
    end)

    await_idle(speech)
    assert File.ls!(folder) == []
    assert Server.port(web) == listener
    assert {200, _headers, _body} = request(web, "GET", "/health")
  end

  test "clients that leave at any moment leave nothing behind", %{web: web, speech: speech} do
    whole =
      bytes("POST", "/v1/audio/speech",
        headers: [@json],
        body: ~s({"input": "Hello. steps:20", "response_format": "pcm"})
      )

    for length <- Enum.take_every(0..byte_size(whole), 7) do
      socket = connect(web)
      :ok = :gen_tcp.send(socket, binary_part(whole, 0, length))
      :gen_tcp.close(socket)
    end

    for _number <- 1..50 do
      socket = connect(web)
      :ok = :gen_tcp.send(socket, whole)
      # Closed with a reset, not with an end.
      :inet.setopts(socket, linger: {true, 0})
      :gen_tcp.close(socket)
    end

    await_idle(speech)
    connections = Server.sibling(web, :connections)
    workers = Server.sibling(web, :workers)
    await(fn -> DynamicSupervisor.count_children(connections).active == 0 end)
    await(fn -> Task.Supervisor.children(workers) == [] end)
    assert {200, _headers, _body} = request(web, "GET", "/health")
  end

  test "a client that sends byte by byte, and one that sends without end", %{web: web} do
    socket = connect(web)
    for <<byte <- bytes("GET", "/health", [])>>, do: :ok = :gen_tcp.send(socket, <<byte>>)
    assert {:ok, "HTTP/1.1 200 OK" <> _rest} = :gen_tcp.recv(socket, 0, 30_000)

    endless = "GET / HTTP/1.1\r\nHost: x\r\n" <> String.duplicate("X-Header: value\r\n", 100_000)
    assert {431, _headers, _body} = web |> raw(endless) |> parse()
  end

  @tag :tmp_dir
  @tag skip: Clients.missing()
  test "requests that schemathesis makes from the description get what it promises", %{web: web, tmp_dir: dir} do
    url = "http://127.0.0.1:#{Server.port(web)}"

    {output, status} =
      System.cmd(
        Path.join(Path.dirname(Clients.python()), "schemathesis"),
        [
          "run",
          url <> "/openapi.json",
          "--url",
          url,
          "--checks",
          "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
          "--exclude-path-regex",
          "^/ready$",
          "--max-examples",
          "60",
          "--seed",
          "1",
          "--no-color"
        ],
        stderr_to_stdout: true,
        cd: dir,
        env: [{"PYTHONDONTWRITEBYTECODE", "1"}, {"NO_PROXY", "*"}, {"HYPOTHESIS_STORAGE_DIRECTORY", dir}]
      )

    assert status == 0, output
    assert [_all, generated] = Regex.run(~r/(\d+) generated, \1 passed/, output)
    assert String.to_integer(generated) > 500
    assert {200, _headers, _body} = request(web, "GET", "/health")
  end
end
