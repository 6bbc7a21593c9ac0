# A stand-in for the optional package Plug, which needs Hex: only what is used here. A connection keeps what it has sent.
unless Code.ensure_loaded?(Plug) do
  defmodule Plug do
    @callback init(keyword) :: term
    @callback call(struct, term) :: struct
  end

  defmodule Plug.Conn.Unfetched do
    defstruct aspect: :body_params
  end

  defmodule Plug.Conn do
    @type t :: %__MODULE__{}

    defstruct [
      :method,
      :status,
      path_info: [],
      query_string: "",
      req_headers: [],
      resp_headers: [],
      resp_body: [],
      body_params: %Plug.Conn.Unfetched{},
      body: "",
      chunks_left: :infinity,
      state: :unset,
      halted: false
    ]

    def read_body(%{body: :late}, _options), do: {:error, :timeout}

    def read_body(conn, length: most) when byte_size(conn.body) > most,
      do: {:more, binary_part(conn.body, 0, most), conn}

    def read_body(conn, _options), do: {:ok, conn.body, conn}

    def put_resp_header(conn, name, value),
      do: %{conn | resp_headers: List.keystore(conn.resp_headers, name, 0, {name, value})}

    def send_resp(%{state: :unset} = conn, status, body),
      do: %{conn | state: :sent, status: status, resp_body: [body]}

    def send_chunked(%{state: :unset} = conn, status), do: %{conn | state: :chunked, status: status}

    def chunk(%{state: :chunked, chunks_left: 0}, _part), do: {:error, :closed}

    def chunk(%{state: :chunked} = conn, part) do
      left = if conn.chunks_left == :infinity, do: :infinity, else: conn.chunks_left - 1
      {:ok, %{conn | resp_body: [conn.resp_body, part], chunks_left: left}}
    end

    def halt(conn), do: %{conn | halted: true}
  end

  Code.compile_file(Path.expand("../../lib/chatterbex/plug.ex", __DIR__))
end

defmodule Chatterbex.PlugTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp, only: [start_fake: 0, start_server: 1, await_idle: 1]

  alias Chatterbex.{Audio, JSON}
  alias Plug.Conn

  # The compiler does not know the stand-in.
  @plug Chatterbex.Plug
  @json {"content-type", "application/json"}

  setup_all do
    speech = start_fake()
    {:ok, speech: speech, options: @plug.init(server: speech, max_body: 1_000)}
  end

  defp post(fields), do: post_body(JSON.encode(Map.new(fields)))

  defp post_body(body) do
    struct!(Conn, method: "POST", path_info: ["v1", "audio", "speech"], req_headers: [@json], body: body)
  end

  defp sent(conn), do: IO.iodata_to_binary(conn.resp_body)

  test "speech is sent in chunks", %{options: options} do
    conn = @plug.call(post(input: "Hello. steps:3", response_format: "wav"), options)
    assert %{state: :chunked, status: 200, halted: true} = conn
    assert {"content-type", "audio/wav"} in conn.resp_headers
    assert {:ok, %Audio{}} = conn |> sent() |> Audio.from_wav()
  end

  test "a client that disconnects ends the work", %{options: options, speech: speech} do
    conn = %{post(input: "Hello. steps:20", response_format: "pcm") | chunks_left: 2}
    assert %{status: 200} = conn = @plug.call(conn, options)
    assert byte_size(sent(conn)) < 30
    await_idle(speech)
  end

  test "a body that does not arrive is answered with 408", %{options: options} do
    assert %{status: 408} = conn = @plug.call(post_body(:late), options)
    assert sent(conn) =~ "the request did not arrive in time"
  end

  test "a body that a parser has read is accepted", %{options: options} do
    conn = %{post_body("") | body_params: %{"input" => "Hi.", "response_format" => "pcm"}}
    assert %{status: 200} = conn = @plug.call(conn, options)
    assert byte_size(sent(conn)) == 6
    assert %{status: 400} = @plug.call(%{conn | state: :unset, body_params: %{"_json" => []}}, options)
  end

  @tag :tmp_dir
  test "a recording that a parser has put on the disk becomes a voice", %{tmp_dir: dir} do
    File.mkdir!(Path.join(dir, "voices"))
    path = Path.join(dir, "upload")
    :ok = Audio.write(Chatterbex.VoiceHelp.tone(6), path, format: :wav)
    speech = start_server(model: :turbo, testing: true, voices: Path.join(dir, "voices"))

    fields = %{
      "name" => "ann",
      "consent" => "yes",
      "audio_sample" => %{
        __struct__: Plug.Upload,
        path: path,
        filename: "../x.wav",
        content_type: "audio/wav"
      }
    }

    conn =
      struct!(Conn,
        method: "POST",
        path_info: ["v1", "audio", "voices"],
        req_headers: [{"content-type", "multipart/form-data; boundary=x"}],
        body_params: fields
      )

    assert %{status: 403} = @plug.call(conn, @plug.init(server: speech))
    small = @plug.init(server: speech, add_voices: true, max_recording: 1_000)
    assert %{status: 413} = refused = @plug.call(conn, small)
    assert sent(refused) =~ "the body is larger than"
    assert %{status: 200} = @plug.call(conn, @plug.init(server: speech, add_voices: true))
    assert File.ls!(Path.join(dir, "voices")) == ["ann.voice"]
  end

  test "errors, bodies that are too large, and other paths", %{options: options} do
    assert %{state: :sent, status: 400} = @plug.call(post(input: ""), options)
    assert %{status: 413} = @plug.call(post_body(String.duplicate(" ", 1_001)), options)
    assert %{status: 404} = @plug.call(struct!(Conn, method: "GET", path_info: ["nothing"]), options)

    assert %{status: 200} =
             conn = @plug.call(struct!(Conn, method: "GET", path_info: ["v1", "models"]), options)

    assert sent(conn) =~ ~s("id": "fake")
  end

  test "options are checked when the plug is made" do
    assert_raise Chatterbex.Error, ~r/unknown option :sever. Did you mean :server/, fn ->
      @plug.init(sever: 1)
    end
  end

  test "counters live as long as the options", %{options: options} do
    for _request <- 1..2, do: @plug.call(struct!(Conn, method: "GET", path_info: ["health"]), options)
    conn = @plug.call(struct!(Conn, method: "GET", path_info: ["metrics"]), options)
    assert sent(conn) =~ ~s(chatterbex_http_requests_total{route="health",status="200"} 2)
  end
end
