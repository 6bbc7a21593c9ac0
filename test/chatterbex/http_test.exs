defmodule Chatterbex.HTTPTest do
  use ExUnit.Case, async: true

  import Chatterbex.HTTPClient, only: [error: 1]
  import Chatterbex.TestHelp, only: [start_fake: 0, start_server: 0, echo: 1]

  alias Chatterbex.{Audio, HTTP, JSON}
  alias Chatterbex.HTTP.Request

  doctest Chatterbex.HTTP
  doctest Chatterbex.HTTP.Request
  doctest Chatterbex.HTTP.Server

  setup_all do
    {:ok, speech: start_fake()}
  end

  defp http(context, options \\ []) do
    {:ok, http} = HTTP.new(Keyword.merge([server: context.speech], options))
    http
  end

  defp call(http, method, path, options \\ []) do
    {path, query} = Chatterbex.HTTP.Server.Wire.path(path)
    headers = Keyword.get(options, :headers, [{"content-type", "application/json"}])
    body = Keyword.get(options, :body, "")

    response =
      HTTP.call(http, %Request{method: method, path: path, query: query, headers: headers, body: body})

    {response.status, Map.new(response.headers), taken(response.body)}
  end

  defp taken({:stream, parts}), do: parts |> Enum.to_list() |> IO.iodata_to_binary()
  defp taken(body), do: IO.iodata_to_binary(body)

  defp speak(http, fields, options \\ []) do
    call(http, "POST", "/v1/audio/speech", [body: JSON.encode(Map.new(fields))] ++ options)
  end

  defp get(http, path) do
    {200, _headers, body} = call(http, "GET", path)
    {:ok, value} = JSON.decode(body)
    value
  end

  describe "speech" do
    test "as WAV and as PCM", context do
      http = http(context)

      assert {200, %{"content-type" => "audio/wav"}, wav} =
               speak(http, input: "Hello.", response_format: "wav")

      assert {:ok, %Audio{sample_rate: 24_000, channels: 1} = audio} = Audio.from_wav(wav)
      assert {:ok, pcm} = Audio.to_pcm16(%Audio{samples: echo("Hello."), sample_rate: 24_000})
      assert {:ok, ^pcm} = Audio.to_pcm16(audio)

      assert {200, %{"content-type" => "audio/pcm"}, ^pcm} =
               speak(http, input: "Hello.", response_format: "pcm")
    end

    test "in every format, mp3 where none is named, and never as aac", context do
      http = http(context)
      text = "One. big:24000 steps:5"

      for {format, type} <- [
            {nil, "audio/mpeg"},
            {"mp3", "audio/mpeg"},
            {"opus", "audio/ogg"},
            {"flac", "audio/flac"},
            {"wav", "audio/wav"}
          ] do
        assert {200, %{"content-type" => ^type}, file} = speak(http, input: text, response_format: format)
        assert {:ok, %Audio{sample_rate: 24_000} = audio} = Audio.from_format(file)
        # MP3 that does not say how long it is has silence around it.
        assert_in_delta Audio.duration(audio), 1.0, 0.12
      end

      assert %{status: 400, param: "response_format", message: message} =
               error(speak(http, input: text, response_format: "aac"))

      assert message =~ "no free encoder"
    end

    test "speeds up and slows down audio of a model without a speed option", context do
      http = http(context)

      for speed <- [0.25, 0.8, 1, 1.5, 4.0] do
        fields = [input: "One. big:48000 steps:7", response_format: "pcm", speed: speed]
        assert {200, _headers, pcm} = speak(http, fields)
        assert byte_size(pcm) == 2 * round(48_000 / speed)
      end
    end

    test "as events", context do
      assert {200, %{"content-type" => "text/event-stream"}, events} =
               speak(http(context), input: "Hello. steps:3", response_format: "pcm", stream_format: "sse")

      events =
        for "data: " <> json <- String.split(events, "\n\n", trim: true) do
          {:ok, event} = JSON.decode(json)
          event
        end

      {deltas, [done]} = Enum.split(events, -1)
      assert length(deltas) == 3
      assert Enum.all?(deltas, &(&1["type"] == "speech.audio.delta"))
      {:ok, pcm} = Audio.to_pcm16(%Audio{samples: echo("Hello. steps:3"), sample_rate: 24_000})
      assert Enum.map_join(deltas, &Base.decode64!(&1["audio"])) == pcm

      assert %{"type" => "speech.audio.done", "usage" => %{"input_tokens" => 14} = usage} = done
      assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    end

    test "accepts OpenAI's model and voice names as the defaults", context do
      http = http(context)

      for model <- ["tts-1", "tts-1-hd", "gpt-4o-mini-tts", "fake", nil],
          voice <- ["alloy", %{id: "nova"}, "default", nil] do
        assert {200, %{"x-chatterbex-model" => "fake"}, _audio} =
                 speak(http, input: "Hello.", response_format: "pcm", model: model, voice: voice)
      end
    end

    test "instructions are ignored, and a header says so", context do
      assert {200, %{"x-chatterbex-ignored" => "instructions"}, _audio} =
               speak(http(context), input: "Hello.", response_format: "pcm", instructions: "Whisper.")
    end

    test "names the wrong field", context do
      http = http(context, max_input: 10)

      for {fields, param} <- [
            {[], "input"},
            {[input: 1], "input"},
            {[input: ""], "input"},
            {[input: " \n"], "input"},
            {[input: "12345678901"], "input"},
            {[input: "Hi.", voice: "../../etc/passwd"], "voice"},
            {[input: "Hi.", voice: "/etc/passwd"], "voice"},
            {[input: "Hi.", voice: 7], "voice"},
            {[input: "Hi.", voice: %{id: 7}], "voice"},
            {[input: "Hi.", voice: %{name: "x"}], "voice"},
            {[input: "Hi.", response_format: "midi"], "response_format"},
            {[input: "Hi.", response_format: 3], "response_format"},
            {[input: "Hi.", speed: 0.2], "speed"},
            {[input: "Hi.", speed: 4.1], "speed"},
            {[input: "Hi.", speed: "fast"], "speed"},
            {[input: "Hi.", stream_format: "ws"], "stream_format"},
            {[input: "Hi.", instructions: 1], "instructions"},
            {[input: "Hi.", model: 1], "model"},
            {[input: "Hi.", seed: 1], "seed"},
            {[input: "Hi.", server: "x"], "server"}
          ] do
        assert %{status: 400, type: "invalid_request_error", param: ^param} = error(speak(http, fields)),
               inspect(fields)
      end

      assert %{status: 404, param: "model", code: "model_not_found", message: message} =
               error(speak(http, input: "Hi.", model: "gpt-9"))

      assert message == ~s(there is no model "gpt-9". There are "fake".)
    end

    test "characters are counted, not bytes", context do
      http = http(context, max_input: 5)
      assert {200, _headers, _audio} = speak(http, input: "äöüß!", response_format: "pcm")
      assert %{status: 400, code: "string_above_max_length"} = error(speak(http, input: "äöüß!?"))
    end

    test "refuses a body that is not a JSON object", context do
      http = http(context)

      for body <- [
            "",
            "{",
            "[]",
            "null",
            "1",
            ~s("x"),
            <<0xFF>>,
            String.duplicate("[", 1_000),
            "{\"a\":" <> String.duplicate("9", 2_000) <> "}"
          ] do
        assert %{status: 400, code: "invalid_json"} =
                 error(call(http, "POST", "/v1/audio/speech", body: body))
      end

      for type <- ["text/plain", "application/x-www-form-urlencoded", "", <<0xFF>>] do
        answer = speak(http, [input: "Hi."], headers: [{"content-type", type}])
        assert %{status: 415} = error(answer)
      end

      assert %{status: 415} = error(speak(http, [input: "Hi."], headers: []))
      json = [{"content-type", "Application/JSON ; charset=utf-8"}]
      assert {200, _headers, _audio} = speak(http, [input: "Hi.", response_format: "pcm"], headers: json)
    end

    test "passes checked model options on, if allowed", context do
      http = http(context, unknown_fields: :pass)
      assert {200, _headers, _audio} = speak(http, input: "Hi.", response_format: "pcm", seed: 7)
      assert %{status: 400, param: "seed"} = error(speak(http, input: "Hi.", seed: "seven"))
      assert %{status: 400, param: "exaggeration"} = error(speak(http, input: "Hi.", exaggeration: 0.5))
      assert %{status: 400, param: "server"} = error(speak(http, input: "Hi.", server: "x"))
      assert %{status: 400, param: "sead", message: message} = error(speak(http, input: "Hi.", sead: 7))
      assert message =~ ~s(Did you mean "seed"?)
    end

    test "answers 400 if the model refuses, and 503 without details of the machine if it fails",
         context do
      http = http(context)
      assert %{status: 400, code: "invalid_text", param: "input"} = error(speak(http, input: "refuse"))

      assert %{status: 503, type: "server_error", message: message} = error(speak(http, input: "fail"))
      refute message =~ "ValueError"
    end

    test "answers 503 if the server is not running" do
      {:ok, http} = HTTP.new(server: MyApp.NoSuchServer, models: %{"gone" => MyApp.NoSuchServer})
      assert {503, %{"retry-after" => _seconds}, _body} = answer = speak(http, input: "Hi.")
      assert %{code: "not_running"} = error(answer)
    end
  end

  describe "speech of the built-in voice" do
    test "is the same as without HTTP, at its own speed and at others" do
      speech = start_server()
      {:ok, http} = HTTP.new(server: speech, unknown_fields: :pass)
      fields = [input: "Good morning.", response_format: "pcm", voice: "heart", seed: 7]
      assert {200, %{"x-chatterbex-model" => "hibari"}, pcm} = speak(http, fields)
      samples = speech |> Chatterbex.stream("Good morning.", seed: 7) |> Enum.map_join(& &1.samples)
      assert {:ok, ^pcm} = Audio.to_pcm16(%Audio{samples: samples, sample_rate: 24_000})

      assert {200, _headers, fast} = speak(http, [speed: 2.0] ++ fields)
      own = speech |> Chatterbex.stream("Good morning.", seed: 7, speed: 2.0) |> Enum.map_join(& &1.samples)
      assert {:ok, ^fast} = Audio.to_pcm16(%Audio{samples: own, sample_rate: 24_000})

      assert {200, _headers, faster} = speak(http, [speed: 4.0] ++ fields)
      assert_in_delta byte_size(faster), byte_size(fast) / 2, 2
    end
  end

  describe "models and voices" do
    test "are listed as OpenAI and Open WebUI read them", context do
      http = http(context)

      assert %{"object" => "list", "data" => [%{"id" => "fake", "object" => "model"} = model]} =
               get(http, "/v1/models")

      assert get(http, "/v1/models/fake") == model
      assert get(http, "/v1/models/tts-1") == model
      assert get(http, "/v1/audio/models") == %{"models" => [%{"id" => "fake", "name" => "fake"}]}
      assert %{"voices" => voices} = get(http, "/v1/audio/voices")
      assert %{"id" => "default", "name" => "default"} in voices

      assert %{status: 404, code: "model_not_found"} = error(call(http, "GET", "/v1/models/nothing"))

      for name <- ["%zz", "%", "%ff"] do
        assert error(call(http, "GET", "/v1/models/" <> name)).status in [400, 404]
        assert error(call(http, "GET", "/v1/audio/voices?model=" <> name)).status in [400, 404]
      end

      assert %{status: 404} = error(call(http, "GET", "/v1/audio/voices?model=nothing"))
    end

    test "use the configured names of several models", context do
      http = http(context, models: %{"a" => start_fake(), "b" => context.speech})
      assert %{"data" => [%{"id" => "b"}, %{"id" => "a"}]} = get(http, "/v1/models")
      assert {200, %{"x-chatterbex-model" => "b"}, _audio} = speak(http, input: "Hi.", response_format: "pcm")

      assert {200, %{"x-chatterbex-model" => "a"}, _audio} =
               speak(http, input: "Hi.", response_format: "pcm", model: "a")
    end

    test "names and servers are checked" do
      assert {:error, %{reason: :invalid_option}} = HTTP.new(models: %{:a => MyApp.Speech})
      assert {:error, %{reason: :invalid_option}} = HTTP.new(models: %{"a" => "MyApp.Speech"})
    end
  end

  describe "the API key" do
    test "is required, except for the health check", context do
      http = http(context, api_key: "secret")

      for header <- [
            nil,
            "",
            "secret",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            "Basic secret",
            "Bearer secret2",
            <<"Bearer ", 0xFF>>
          ] do
        headers = if header, do: [{"authorization", header}], else: []

        for {method, path} <- [{"POST", "/v1/audio/speech"}, {"GET", "/v1/models"}, {"GET", "/metrics"}] do
          assert {401, %{"www-authenticate" => "Bearer"}, _body} =
                   answer = call(http, method, path, headers: headers)

          assert %{type: "authentication_error", code: "invalid_api_key"} = error(answer)
        end
      end

      for header <- ["Bearer secret", "bearer  secret"],
          do:
            assert(
              {200, _headers, _body} = call(http, "GET", "/v1/models", headers: [{"authorization", header}])
            )

      assert {200, _headers, _body} = call(http, "GET", "/health")
      assert {200, _headers, _body} = call(http, "GET", "/ready")
    end

    test "is not shown", context do
      refute inspect(http(context, api_key: "secret")) =~ "secret"
    end
  end

  describe "web pages of other origins" do
    test "are refused unless their origin is allowed", context do
      {200, headers, _body} = call(http(context), "GET", "/v1/models")
      refute Map.has_key?(headers, "access-control-allow-origin")
      assert %{status: 405} = error(call(http(context), "OPTIONS", "/v1/audio/speech"))

      http = http(context, cors: "https://example.com", api_key: "secret")
      assert {204, headers, ""} = call(http, "OPTIONS", "/v1/audio/speech")
      assert headers["access-control-allow-origin"] == "https://example.com"
      assert headers["access-control-allow-headers"] =~ "authorization"
    end
  end

  test "other paths and methods are refused", context do
    http = http(context)
    assert %{status: 404} = error(call(http, "GET", "/v1"))
    assert {405, %{"allow" => "POST"}, _body} = call(http, "GET", "/v1/audio/speech")
    assert {405, %{"allow" => "GET, HEAD"}, _body} = call(http, "DELETE", "/v1/models")
  end

  test "counts requests and failures", context do
    http = http(context)
    {200, _headers, _audio} = speak(http, input: "Hello.", response_format: "pcm")
    {404, _headers, _body} = call(http, "GET", "/nothing")
    {200, %{"content-type" => "text/plain" <> _version}, text} = call(http, "GET", "/metrics")
    assert text =~ ~s(chatterbex_http_requests_total{route="speech",status="200"} 1\n)
    assert text =~ ~s(chatterbex_http_requests_total{route="other",status="404"} 1\n)
    assert text =~ "chatterbex_http_first_byte_seconds_count 1\n"
    assert text =~ "chatterbex_http_input_characters_total 6\n"
    assert text =~ ~s(chatterbex_queue_open{model="fake"} 0\n)
    assert text =~ ~s(chatterbex_ready{model="fake"} 1\n)
  end

  test "the OpenAPI description lists every route, and this version", context do
    description = get(http(context), "/openapi.json")
    assert description["info"]["version"] == Mix.Project.config()[:version]

    for {path, methods} <- description["paths"],
        {method, _operation} <- methods,
        not String.contains?(path, "{") do
      {status, _headers, _body} = call(http(context), String.upcase(method), path)
      assert status not in [404, 405], path
    end
  end

  test "the page only calls this server", context do
    assert {200, %{"content-type" => "text/html" <> _charset} = headers, page} =
             call(http(context, api_key: "x"), "GET", "/")

    assert headers["content-security-policy"] =~ "default-src 'none'"
    refute page =~ ~r{(src|href)\s*=\s*"?(https?:)?//}

    assert {200, %{"content-type" => "text/javascript" <> _more}, player} =
             call(http(context, api_key: "x"), "GET", "/chatterbex.js")

    assert player =~ "export class Player"
  end

  test "speech that fails after its first audio is counted, and raises in the consumer", context do
    http = http(context)
    body = JSON.encode(%{input: "Hello.\n\nfail", response_format: "pcm"})
    headers = [{"content-type", "application/json"}]
    request = %Request{method: "POST", path: "/v1/audio/speech", headers: headers, body: body}
    assert %{status: 200, body: {:stream, parts}} = HTTP.call(http, request)
    assert_raise Chatterbex.Error, ~r/told to fail/, fn -> Enum.to_list(parts) end
    {200, _headers, text} = call(http, "GET", "/metrics")
    assert text =~ "chatterbex_http_failed_streams_total 1\n"
  end

  test "ready says whether models are loaded", context do
    assert get(http(context), "/ready") == %{"ready" => true, "models" => %{"fake" => "ready"}}
    {:ok, http} = HTTP.new(server: MyApp.NoSuchServer, models: %{"gone" => MyApp.NoSuchServer})
    assert {503, _headers, body} = call(http, "GET", "/ready")
    assert {:ok, %{"ready" => false, "models" => %{"gone" => "not_running"}}} = JSON.decode(body)
  end
end
