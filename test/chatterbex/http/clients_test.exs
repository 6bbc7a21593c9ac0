defmodule Chatterbex.HTTP.ClientsTest do
  use ExUnit.Case, async: true

  import Chatterbex.HTTPClient, only: [raw: 2, parse: 1, error: 1]
  import Chatterbex.TestHelp, only: [start_server: 0]

  alias Chatterbex.{Audio, Clients, JSON}
  alias Chatterbex.HTTP.Server

  @moduletag :tmp_dir
  @fixtures Path.expand("../../fixtures/http", __DIR__)

  setup_all do
    speech = start_server()
    {:ok, web: start_supervised!({Server, server: speech, port: 0, api_key: "secret"})}
  end

  defp url(web), do: "http://127.0.0.1:#{Server.port(web)}/v1"

  # The request as the program sends it; the length of its body is counted here.
  defp fixture(name) do
    [head, body] = @fixtures |> Path.join(name <> ".http") |> File.read!() |> String.split("\n\n", parts: 2)
    body = String.trim_trailing(body)
    head = head |> String.replace("LENGTH", "#{byte_size(body)}") |> String.replace("\n", "\r\n")
    # The server closes the connection, so the end of the answer is visible.
    String.replace(head, ~r/\r\nConnection: [^\r]*/, "") <> "\r\nConnection: close\r\n\r\n" <> body
  end

  defp speech(bytes) do
    assert {:ok, audio} = Audio.from_format(bytes)
    assert audio.sample_rate == 24_000
    assert Audio.duration(audio) > 0.5
    audio
  end

  describe "literal requests of" do
    test "Open WebUI", %{web: web} do
      assert {200, %{"content-type" => "audio/mpeg"}, mp3} = web |> raw(fixture("open_webui")) |> parse()
      speech(mp3)

      # It asks for these without its key, and falls back to OpenAI's names.
      for name <- ["open_webui_models", "open_webui_voices"],
          do: assert(%{status: 401} = web |> raw(fixture(name)) |> parse() |> error())

      keyless = start_supervised!({Server, server: Chatterbex.DefaultServer, port: 0}, id: :keyless)
      {:ok, _info} = Chatterbex.info()
      assert {200, _headers, body} = keyless |> raw(fixture("open_webui_models")) |> parse()
      assert {:ok, %{"models" => [%{"id" => "hibari"}]}} = JSON.decode(body)
      assert {200, _headers, body} = keyless |> raw(fixture("open_webui_voices")) |> parse()

      assert {:ok,
              %{
                "voices" => [%{"id" => "heart", "name" => "heart"}, %{"id" => "default", "name" => "default"}]
              }} = JSON.decode(body)
    end

    test "LibreChat", %{web: web} do
      assert {200, %{"content-type" => "audio/mpeg"}, mp3} = web |> raw(fixture("librechat")) |> parse()
      speech(mp3)
    end

    test "SillyTavern", %{web: web} do
      assert {200, %{"content-type" => "audio/mpeg"}, mp3} = web |> raw(fixture("sillytavern")) |> parse()
      speech(mp3)
    end

    test "Home Assistant's openai_tts", %{web: web} do
      assert {200, headers, mp3} = web |> raw(fixture("home_assistant")) |> parse()
      assert %{"content-type" => "audio/mpeg", "x-chatterbex-ignored" => "instructions"} = headers
      speech(mp3)

      assert {200, %{"content-type" => "audio/ogg"}, opus} =
               web |> raw(fixture("home_assistant_stream")) |> parse()

      speech(opus)
    end
  end

  describe "curl" do
    @describetag skip: if(System.find_executable("curl"), do: false, else: "curl is not installed")

    test "gets a file", %{web: web, tmp_dir: dir} do
      path = Path.join(dir, "speech.flac")

      {output, status} =
        System.cmd("curl", [
          "--silent",
          "--show-error",
          "--fail",
          "--noproxy",
          "*",
          "--max-time",
          "60",
          url(web) <> "/audio/speech",
          "-H",
          "Authorization: Bearer secret",
          "-H",
          "Content-Type: application/json",
          "-d",
          ~s({"input": "Hello from curl.", "voice": "heart", "response_format": "flac"}),
          "-o",
          path
        ])

      assert {output, status} == {"", 0}
      path |> File.read!() |> speech()
    end

    test "reports that a request is wrong", %{web: web} do
      {output, 0} =
        System.cmd("curl", [
          "--silent",
          "--write-out",
          "%{http_code}",
          "--noproxy",
          "*",
          url(web) <> "/audio/speech",
          "-H",
          "Authorization: Bearer secret",
          "-d",
          "hello"
        ])

      assert output =~ "send `Content-Type: application/json`"
      assert String.ends_with?(output, "415")
    end
  end

  describe "OpenAI's Python client" do
    @describetag skip: Clients.missing()

    @client """
    import sys
    import openai
    base, path = sys.argv[1:]
    client = openai.OpenAI(base_url=base, api_key="secret", max_retries=0, timeout=60)
    """

    test "speaks, plain and streaming", %{web: web, tmp_dir: dir} do
      code =
        @client <>
          """
          speech = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello from Python.")
          open(path + "/plain.mp3", "wb").write(speech.read())

          arguments = dict(model="hibari", voice="heart", input="Hello from Python. And again.")
          with client.audio.speech.with_streaming_response.create(response_format="wav", **arguments) as speech:
              parts = list(speech.iter_bytes())
          assert len(parts) > 1, len(parts)
          open(path + "/streamed.wav", "wb").write(b"".join(parts))

          with client.audio.speech.with_streaming_response.create(
              response_format="opus", speed=1.5, instructions="Calmly.", **arguments
          ) as speech:
              assert speech.headers["x-chatterbex-ignored"] == "instructions"
              speech.stream_to_file(path + "/streamed.opus")

          print([model.id for model in client.models.list()], client.models.retrieve("hibari").id)
          """

      assert {"['hibari'] hibari\n", 0} = Clients.run(code, [url(web), dir])

      for name <- ["plain.mp3", "streamed.wav", "streamed.opus"],
          do: dir |> Path.join(name) |> File.read!() |> speech()
    end

    test "gets its own errors", %{web: web} do
      code =
        @client <>
          """
          def error(kind, call):
              try:
                  call()
              except kind as problem:
                  print(problem.status_code, problem.type, problem.param, problem.code)

          speak = client.audio.speech.create
          error(openai.BadRequestError, lambda: speak(model="tts-1", voice="nobody", input="Hello."))
          error(openai.BadRequestError, lambda: speak(model="tts-1", voice="alloy", input=""))
          error(openai.BadRequestError, lambda: speak(model="tts-1", voice="alloy", input="Hello.", response_format="aac"))
          error(openai.BadRequestError, lambda: speak(model="tts-1", voice="alloy", input="Hi.", extra_body={"seed": 1}))
          error(openai.NotFoundError, lambda: speak(model="none", voice="alloy", input="Hello."))
          other = openai.OpenAI(base_url=base, api_key="wrong", max_retries=0)
          error(openai.AuthenticationError, lambda: other.models.list())
          """

      assert {output, 0} = Clients.run(code, [url(web), ""])

      assert String.split(output, "\n", trim: true) == [
               "400 invalid_request_error voice invalid_value",
               "400 invalid_request_error input invalid_text",
               "400 invalid_request_error response_format invalid_value",
               "400 invalid_request_error seed unknown_parameter",
               "404 invalid_request_error model model_not_found",
               "401 authentication_error None invalid_api_key"
             ]
    end
  end
end
