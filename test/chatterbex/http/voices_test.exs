defmodule Chatterbex.HTTP.VoicesTest do
  # Voices are made one at a time in a VM: these tests would stand in the way of others.
  use ExUnit.Case, async: false

  import Chatterbex.HTTPClient, only: [bytes: 3, connect: 1, error: 1, parse: 1, raw: 2]
  import Chatterbex.TestHelp, only: [start_server: 1]
  import Chatterbex.VoiceHelp, only: [tone: 1]

  alias Chatterbex.{Audio, Clients, HTTP, JSON, Voice}
  alias Chatterbex.HTTP.{Request, Server}

  @moduletag :tmp_dir
  @boundary "a-boundary"
  @form {"content-type", "multipart/form-data; boundary=#{@boundary}"}

  setup_all do
    {:ok, wav: Audio.to_wav!(tone(6))}
  end

  setup %{tmp_dir: dir} do
    speech = start_server(model: :turbo, testing: true, voices: dir)
    {:ok, http} = HTTP.new(server: speech, add_voices: true, max_recording: 1_000_000)
    {:ok, speech: speech, http: http}
  end

  defp form(fields) do
    parts =
      for {name, value} <- fields do
        {file, value} =
          case value do
            {:file, bytes} -> {~s(; filename="../../#{name}.wav"\r\nContent-Type: audio/wav), bytes}
            text -> {"", text}
          end

        [
          "--#{@boundary}\r\nContent-Disposition: form-data; name=\"#{name}\"",
          file,
          "\r\n\r\n",
          value,
          "\r\n"
        ]
      end

    IO.iodata_to_binary([parts, "--#{@boundary}--\r\n"])
  end

  defp post(http, body, headers \\ [@form], query \\ "") do
    body = if is_list(body), do: form(body), else: body

    response =
      HTTP.call(http, %Request{
        method: "POST",
        path: "/v1/audio/voices",
        query: query,
        headers: headers,
        body: body
      })

    {response.status, Map.new(response.headers), IO.iodata_to_binary(response.body)}
  end

  defp add(http, fields, wav) do
    post(http, Keyword.merge([name: "ann", consent: "agreed on 3 May", audio_sample: {:file, wav}], fields))
  end

  defp names(http) do
    response = HTTP.call(http, %Request{method: "GET", path: "/v1/audio/voices"})
    {:ok, %{"voices" => voices}} = response.body |> IO.iodata_to_binary() |> JSON.decode()
    Enum.map(voices, & &1["id"])
  end

  test "a recording becomes a voice that is listed, saved with its consent, and usable", context do
    %{http: http, wav: wav, tmp_dir: dir} = context
    assert {200, _headers, body} = add(http, [name: "Ann Özil"], wav)

    assert {:ok,
            %{"id" => "Ann Özil", "name" => "Ann Özil", "object" => "audio.voice", "type" => "audio_sample"} =
              voice} = JSON.decode(body)

    assert is_integer(voice["created_at"])
    assert "Ann Özil" in names(http)
    assert File.ls!(dir) == ["Ann Özil.voice"]

    saved = Voice.load!(Path.join(dir, "Ann Özil.voice"))
    assert %Voice{name: "Ann Özil", family: "turbo", metadata: %{note: "agreed on 3 May"}} = saved

    body = JSON.encode(%{input: "Hello.", voice: %{id: "Ann Özil"}, response_format: "pcm"})
    json = [{"content-type", "application/json"}]
    request = %Request{method: "POST", path: "/v1/audio/speech", headers: json, body: body}
    assert %{status: 200, body: {:stream, audio}} = HTTP.call(http, request)
    assert Enum.count(audio) > 0
  end

  test "no voice is replaced, even if two arrive at once", %{http: http, wav: wav, tmp_dir: dir} do
    assert {200, _headers, _body} = add(http, [], wav)
    before = File.read!(Path.join(dir, "ann.voice"))
    assert %{status: 409, param: "name", code: "already_exists"} = error(add(http, [], wav))
    assert %{status: 409} = error(add(http, [name: "default"], wav))
    File.write!(Path.join(dir, "bob.wav"), wav)
    assert %{status: 409} = error(add(http, [name: "bob"], wav))
    assert File.read!(Path.join(dir, "ann.voice")) == before
    assert Enum.sort(File.ls!(dir)) == ["ann.voice", "bob.wav"]
    # The model was not asked for a voice that could not be saved either.
    assert [%{options: %{name: "ann"}}] = Chatterbex.Test.requests()

    alone = {HTTP.Voices, self()}
    true = :global.set_lock(alone, [node()])

    assert {429, %{"retry-after" => _}, _body} =
             Task.await(Task.async(fn -> add(http, [name: "cy"], wav) end))

    true = :global.del_lock(alone, [node()])
    assert {200, _headers, _body} = add(http, [name: "cy"], wav)
  end

  test "of several writers of one new file, one succeeds, and no temporary file is left", %{tmp_dir: dir} do
    results =
      1..20
      |> Task.async_stream(&Voice.Folder.add(dir, "ann", "voice #{&1}"), max_concurrency: 20)
      |> Enum.map(fn {:ok, result} -> result end)

    assert [:ok] = Enum.filter(results, &(&1 == :ok))
    assert File.ls!(dir) == ["ann.voice"]
  end

  test "invalid names and other wrong fields are refused", %{http: http, wav: wav, tmp_dir: dir} do
    for name <- [
          "",
          " ",
          ".",
          "..",
          "../ann",
          "a/b",
          "a\\b",
          "/etc/passwd",
          ".hidden",
          "ann\0",
          "ann\n",
          "a\u202Eb",
          "ann ",
          "-rf",
          "C:ann",
          String.duplicate("a", 61),
          String.duplicate("a\u0301\u0301\u0301", 60)
        ] do
      assert %{status: 400, param: "name"} = error(add(http, [name: name], wav)), inspect(name)
    end

    for {fields, param} <- [
          {[consent: " "], "consent"},
          {[consent: String.duplicate("a", 4_001)], "consent"},
          {[consent: {:file, "yes"}], "consent"},
          {[audio_sample: "a path"], "audio_sample"},
          {[audio_sample: {:file, ""}], "audio_sample"},
          {[audio_sample: {:file, "no audio"}], "audio_sample"},
          {[audio_sample: {:file, Audio.to_wav!(tone(1))}], "audio_sample"},
          {[type: "prompt"], "type"},
          {[prompt: "a calm voice"], "prompt"}
        ] do
      assert %{status: 400, param: ^param} = error(add(http, fields, wav)), inspect(fields)
    end

    for field <- [:name, :consent, :audio_sample] do
      fields = Keyword.delete([name: "ann", consent: "yes", audio_sample: {:file, wav}], field)
      param = Atom.to_string(field)
      assert %{status: 400, param: ^param, code: "missing_required_parameter"} = error(post(http, fields))
    end

    assert %{status: 413} = error(add(http, [audio_sample: {:file, :binary.copy(<<0>>, 1_000_001)}], wav))

    assert %{status: 404} =
             error(post(http, [name: "a", consent: "b", audio_sample: {:file, wav}], [@form], "model=x"))

    assert File.ls!(dir) == []
  end

  test "bodies that are not a form are refused", %{http: http} do
    for type <- ["application/json", "multipart/form-data", "multipart/form-data; boundary=", "", <<0xFF>>] do
      assert %{status: 415} = error(post(http, "{}", [{"content-type", type}]))
    end

    delimiter = "--#{@boundary}"
    head = "\r\nContent-Disposition: form-data; name=\"name\""

    for body <- [
          "",
          "hello",
          delimiter,
          delimiter <> "\r\n",
          delimiter <> head,
          delimiter <> head <> "\r\n\r\n",
          delimiter <> head <> "\r\n\r\nann",
          delimiter <> "\r\nContent-Type: text/plain\r\n\r\nann\r\n" <> delimiter <> "--",
          "x" <> delimiter <> head <> "\r\n\r\nann\r\n" <> delimiter <> "--",
          form(name: <<0xFF>>),
          form(name: "a", name: "b"),
          form(for n <- 1..21, do: {"n#{n}", "x"}),
          delimiter <>
            "\r\nX: " <> String.duplicate("a", 5_000) <> head <> "\r\n\r\nann\r\n" <> delimiter <> "--"
        ] do
      assert %{status: 400, code: "invalid_form"} = error(post(http, body)), inspect(body)
    end
  end

  test "voices cannot be added if that is not allowed, or without a folder", context do
    %{speech: speech, wav: wav, tmp_dir: dir} = context
    {:ok, http} = HTTP.new(server: speech)
    assert %{status: 403, type: "permission_error", code: "forbidden"} = error(add(http, [], wav))
    assert File.ls!(dir) == []

    {:ok, http} = HTTP.new(server: start_server(model: :turbo, testing: true), add_voices: true)
    assert %{status: 503} = error(add(http, [], wav))

    {:ok, http} = HTTP.new(server: start_server(model: :hibari, testing: true), add_voices: true)
    assert %{status: 400, code: "not_supported"} = error(add(http, [], wav))
  end

  test "web pages of other origins may not add voices unless their origin is allowed or a key is set",
       context do
    %{speech: speech, wav: wav} = context
    fields = [name: "ann", consent: "yes", audio_sample: {:file, wav}]
    host = {"host", "localhost:4000"}
    foreign = [@form, host, {"origin", "https://evil.example"}]

    status = fn options, headers ->
      {:ok, http} = HTTP.new([server: speech, add_voices: true] ++ options)

      {status, _headers, _body} =
        post(http, Keyword.put(fields, :name, "v#{System.unique_integer([:positive])}"), headers)

      status
    end

    assert status.([], foreign) == 403
    assert status.([], [@form, host, {"origin", "null"}]) == 403
    assert status.([], [@form, host, {"origin", "http://localhost:4000"}]) == 200
    assert status.([cors: "https://evil.example"], foreign) == 200
    assert status.([api_key: "secret"], foreign) == 401
    assert status.([api_key: "secret"], [{"authorization", "Bearer secret"} | foreign]) == 200
  end

  describe "over a socket" do
    defp serve(context, options \\ []) do
      options = Keyword.merge([server: context.speech, port: 0, add_voices: true, api_key: "secret"], options)
      start_supervised!({Server, options}, id: System.unique_integer())
    end

    defp upload(body, headers \\ [{"Authorization", "Bearer secret"}]) do
      {name, value} = @form
      bytes("POST", "/v1/audio/voices", headers: [{name, value} | headers], body: body)
    end

    test "a recording may be larger than other bodies, up to its own limit", context do
      web = serve(context, max_body: 1_000, max_recording: 400_000)
      assert byte_size(context.wav) > 100_000
      body = form(name: "ann", consent: "yes", audio_sample: {:file, context.wav})
      assert {200, _headers, _body} = web |> raw(upload(body)) |> parse()
      assert %{status: 413} = web |> raw(upload(:binary.copy("a", 500_000))) |> parse() |> error()
      other = bytes("POST", "/v1/audio/speech", headers: [{"Authorization", "Bearer secret"}], body: body)
      assert %{status: 413} = web |> raw(other) |> parse() |> error()
    end

    test "a refused upload is not read", context do
      web = serve(context)
      [head, _body] = form([]) |> upload([]) |> String.split("\r\n\r\n", parts: 2)
      head = String.replace(head, ~r/Content-Length: \d+/, "Content-Length: 9000000") <> "\r\n\r\n"
      socket = connect(web)
      :ok = :gen_tcp.send(socket, head)
      assert {:ok, "HTTP/1.1 401" <> _rest} = :gen_tcp.recv(socket, 0, 30_000)

      socket = context |> serve(add_voices: false) |> connect()
      authorized = String.replace(head, "\r\n\r\n", "\r\nAuthorization: Bearer secret\r\n\r\n")
      :ok = :gen_tcp.send(socket, authorized)
      assert {:ok, "HTTP/1.1 403" <> _rest} = :gen_tcp.recv(socket, 0, 30_000)
    end

    @tag skip: if(System.find_executable("curl"), do: false, else: "curl is not installed")
    test "curl adds a voice", context do
      path = Chatterbex.TestHelp.temporary_path("sample") <> ".wav"
      File.write!(path, context.wav)
      on_exit(fn -> File.rm(path) end)

      {output, 0} =
        System.cmd("curl", [
          "--silent",
          "--noproxy",
          "*",
          "http://127.0.0.1:#{Server.port(serve(context))}/v1/audio/voices",
          "-H",
          "Authorization: Bearer secret",
          "-F",
          "name=ann",
          "-F",
          "consent=cons_1234",
          "-F",
          "audio_sample=@#{path};type=audio/x-wav"
        ])

      assert {:ok, %{"id" => "ann", "object" => "audio.voice"}} = JSON.decode(output)
    end

    @tag skip: Clients.missing()
    test "OpenAI's Python client adds a voice and speaks with it", context do
      path = Chatterbex.TestHelp.temporary_path("sample") <> ".wav"
      File.write!(path, context.wav)
      on_exit(fn -> File.rm(path) end)

      code = """
      import sys
      import openai
      base, path = sys.argv[1:]
      client = openai.OpenAI(base_url=base, api_key="secret", max_retries=0, timeout=60)
      voice = client.audio.voices.create(name="ann", audio_sample=open(path, "rb"), consent="cons_1234")
      print(voice.id, voice.name, voice.object, voice.type, voice.created_at > 0)
      speech = client.audio.speech.create(model="tts-1", voice={"id": voice.id}, input="Hello.", response_format="wav")
      print(speech.read()[:4])
      try:
          client.audio.voices.create(name="ann", audio_sample=open(path, "rb"), consent="cons_1234")
      except openai.ConflictError as problem:
          print(problem.status_code, problem.param, problem.code)
      """

      url = "http://127.0.0.1:#{Server.port(serve(context))}/v1"

      assert Clients.run(code, [url, path]) ==
               {"ann ann audio.voice audio_sample True\nb'RIFF'\n409 name already_exists\n", 0}
    end
  end
end
