defmodule Chatterbex.HTTP do
  @moduledoc """
  Speech over HTTP, compatible with OpenAI's API. Clients of OpenAI's speech API work with it.

  This module is the interface without a web server: plain functions that turn a request into a response. To serve it, use
  `Chatterbex.Plug` in a Phoenix or Plug application, `Chatterbex.HTTP.Server` under your own supervisor, or
  `mix chatterbex.serve`. [The guide](http.md) shows how clients call it.

      {:ok, http} = Chatterbex.HTTP.new(server: MyApp.Speech)
      response = Chatterbex.HTTP.call(http, %Chatterbex.HTTP.Request{method: "GET", path: "/v1/models"})

  | request | answer |
  |---|---|
  | `POST /v1/audio/speech` | speech, sent while it is made |
  | `GET /v1/models`, `GET /v1/models/NAME` | the models, as OpenAI lists them |
  | `GET /v1/audio/models` | the models, as `{"models": [{"id", "name"}]}` |
  | `GET /v1/audio/voices` | the voices of a model (`?model=NAME`), as `{"voices": [{"id", "name"}]}` |
  | `POST /v1/audio/voices` | makes a voice from a recording, if that is allowed (`:add_voices`) |
  | `GET /health` | 200 as long as the web server runs |
  | `GET /ready` | 200 if every model is loaded, otherwise 503 |
  | `GET /metrics` | counters in Prometheus' text format |
  | `GET /openapi.json` | a description of all this for programs |
  | `GET /` | a page to try it with |
  | `GET /chatterbex.js` | the player of that page, for pages of your own: see [the guide](liveview.md) |

  Requests to `/v1` and `/metrics` need the API key, if one is set.

  ## Speech

  The body is JSON, with the fields that OpenAI documents:

    * `input` - the text; the only required field
    * `model` - a name from `/v1/models`. OpenAI's own `tts-1`, `tts-1-hd` and `gpt-4o-mini-tts` mean the default model
    * `voice` - a name from `/v1/audio/voices`, or `{"id": name}`. OpenAI's own names, such as `alloy`, mean the model's
      default voice if no voice has that name. It is never a path
    * `response_format` - `mp3` (the default), `opus` (in Ogg), `flac`, `wav` or `pcm` (16-bit little-endian, one channel).
      There is no encoder for `aac`
    * `speed` - from 0.25 to 4.0. Models with an option for the pace use it; the audio of the others is stretched and
      keeps its pitch
    * `stream_format` - `audio`, or `sse` for events that carry the audio in Base64
    * `instructions` - accepted and ignored; the response header `x-chatterbex-ignored` says so

  ## New voices

  With `add_voices: true`, clients can add voices. The body is a form, `multipart/form-data`, with the fields that OpenAI
  documents for voices from recordings:

    * `name` - the name of the voice: letters and digits, and spaces, `.`, `_`, `'` and `-` between them, at most 60
    * `audio_sample` - the recording as a WAV, FLAC, MP3 or Ogg file; `Chatterbex.Voice` describes a good one
    * `consent` - what the speaker has agreed to. OpenAI's clients send the id of a consent here; any text will do. It is
      saved in the voice, as its `note`

  `?model=NAME` chooses the model. The voice is saved as `NAME.voice` in the voices folder of that model's server, and you
  can use it at once. One voice is made at a time, and no voice is replaced. Anyone who may call this can imitate any
  voice that they have a recording of: allow it only together with an API key.

  ## Errors

  A request that fails is answered with `{"error": {"message", "type", "param", "code"}}` and one of these statuses:

  | status | meaning |
  |---|---|
  | 400 | the request is wrong; the message says what |
  | 401 | the API key is missing or wrong |
  | 403 | voices may not be added |
  | 404 | there is no such path or model |
  | 405, 415 | the method, or the type of the body, is wrong |
  | 409 | a voice already has this name |
  | 413 | the body is too large |
  | 429 | the queue is full |
  | 503 | the model cannot speak now |

  429 and 503 have `Retry-After` if trying again can help. If speech fails after its first audio was sent, the response
  ends without HTTP's end marker, which clients report as an error.
  """

  require Logger

  alias Chatterbex.{Error, Options}
  alias Chatterbex.HTTP.{Catalogue, Counters, Key, Pages, Request, Response, Speech, Status, Voices}

  @enforce_keys [:options, :metrics]
  defstruct [:options, :metrics, key: nil]

  @typedoc "The interface with its options. Its fields are private."
  @opaque t :: %__MODULE__{}

  @routes %{
    "/v1/audio/speech" => {:speech, ["POST"], :key},
    "/v1/models" => {:models, ["GET", "HEAD"], :key},
    "/v1/audio/models" => {:audio_models, ["GET", "HEAD"], :key},
    "/v1/audio/voices" => {:voices, ["GET", "HEAD", "POST"], :key},
    "/" => {:playground, ["GET", "HEAD"], :open},
    "/chatterbex.js" => {:player, ["GET", "HEAD"], :open},
    "/openapi.json" => {:openapi, ["GET", "HEAD"], :open},
    "/health" => {:health, ["GET", "HEAD"], :open},
    "/ready" => {:ready, ["GET", "HEAD"], :open},
    "/metrics" => {:metrics, ["GET", "HEAD"], :key}
  }

  @doc """
  Creates the interface.

  ## Options

  #{Chatterbex.Options.Schema.docs(:http)}

  ## Examples

      iex> {:error, error} = Chatterbex.HTTP.new(api_kye: "secret")
      iex> error.message =~ "unknown option :api_kye. Did you mean :api_key?"
      true
  """
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options \\ []) do
    with {:ok, options} <- Options.validate(:http, options),
         {:ok, models} <- models(options.models) do
      {:ok,
       %__MODULE__{
         options: %{options | models: models},
         key: options.api_key && Key.digest(options.api_key),
         metrics: Counters.new()
       }}
    end
  end

  defp models(models) do
    Enum.reduce_while(models, {:ok, %{}}, fn {name, server}, {:ok, valid} ->
      with {:ok, name} <- Options.value("the name of a model in :models", :string, name),
           {:ok, server} <- Options.value("a server in :models", :server, server) do
        {:cont, {:ok, Map.put(valid, name, server)}}
      else
        error -> {:halt, error}
      end
    end)
  end

  @doc """
  Answers a request.

  It returns as soon as the status is known. For speech, that is when the first audio arrives. Call it in a process that
  ends when the client hangs up, so that the model's work ends too.

  ## Examples

      iex> {:ok, http} = Chatterbex.HTTP.new()
      iex> Chatterbex.HTTP.call(http, %Chatterbex.HTTP.Request{method: "GET", path: "/health"}).status
      200
      iex> Chatterbex.HTTP.call(http, %Chatterbex.HTTP.Request{method: "GET", path: "/nothing"}).status
      404
  """
  @spec call(t, Request.t()) :: Response.t()
  def call(%__MODULE__{} = http, %Request{} = request) do
    started = System.monotonic_time()
    {route, response} = answer(http, request)
    Counters.answered(http.metrics, route, response.status)

    response = Counters.timed(http.metrics, route, response, started)
    %{response | headers: response.headers ++ cors(http.options.cors)}
  end

  # For web servers, before they read the body: how many bytes it may have, and the response to a larger one.
  @doc false
  @spec limit(t, Request.t()) :: {pos_integer, Response.t()}
  def limit(%__MODULE__{options: options} = http, %Request{} = request) do
    case route(request.path) do
      nil -> {options.max_body, not_found()}
      route -> limit(early(http, request, route), route, http, request)
    end
  end

  defp limit(nil, {:voices, _methods, _access}, http, %{method: "POST"}),
    do: http.options |> Voices.max_body() |> larger()

  defp limit(nil, _route, http, _request), do: larger(http.options.max_body)
  defp limit(answer, _route, http, _request), do: {http.options.max_body, answer}

  defp larger(max), do: {max, Response.error(413, "the body is larger than #{max} bytes")}

  @doc """
  Whether a request makes a model work, which may take long. A web server may want to limit how many it serves at a time.

  ## Examples

      iex> Chatterbex.HTTP.long?(%Chatterbex.HTTP.Request{method: "POST", path: "/v1/audio/speech"})
      true
  """
  @spec long?(Request.t()) :: boolean
  def long?(%Request{method: method, path: path}),
    do: method == "POST" and path in ["/v1/audio/speech", "/v1/audio/voices"]

  defp answer(http, request) do
    {route, response} =
      case route(request.path) do
        nil ->
          {:other, not_found()}

        {name, _methods, _access} = route ->
          {name, early(http, request, route) || respond(name, http, request)}
      end

    {route, response}
  rescue
    exception ->
      Logger.error("a request failed: " <> Exception.format(:error, exception, __STACKTRACE__))
      {:other, Response.error(500, "the server failed; its log says why")}
  end

  defp route("/v1/models/" <> _name), do: {:model, ["GET", "HEAD"], :key}
  defp route(path), do: @routes[path]

  defp not_found do
    Response.error(
      404,
      "there is nothing at this path. Speech is at POST /v1/audio/speech; the base URL of clients ends with /v1."
    )
  end

  # The response that does not depend on the body, if any.
  #
  # A browser asks with OPTIONS, and without the key, whether a page of another origin may call.
  defp early(%{options: %{cors: cors}}, %Request{method: "OPTIONS"}, {_name, methods, _access})
       when is_binary(cors) do
    headers = [
      {"access-control-allow-methods", Enum.join(methods, ", ")},
      {"access-control-allow-headers", "authorization, content-type"},
      {"access-control-max-age", "600"}
    ]

    %Response{status: 204, headers: headers}
  end

  defp early(http, request, {name, methods, access}) do
    cond do
      access == :key and not Key.valid?(http.key, Request.header(request, "authorization")) ->
        Response.error(
          401,
          "the API key is missing or wrong: send it as `Authorization: Bearer KEY`",
          code: "invalid_api_key",
          headers: [{"www-authenticate", "Bearer"}]
        )

      request.method not in methods ->
        allowed = Enum.join(methods, ", ")
        Response.error(405, "this path only accepts #{allowed}", headers: [{"allow", allowed}])

      name == :voices and request.method == "POST" ->
        Voices.refused(http.options, request)

      true ->
        nil
    end
  end

  defp respond(:speech, http, request), do: Speech.respond(http.options, http.metrics, request)
  defp respond(:models, http, _request), do: Catalogue.models(http.options)

  defp respond(:model, http, %{path: "/v1/models/" <> name}), do: Catalogue.model(http.options, name)

  defp respond(:audio_models, http, _request), do: Catalogue.audio_models(http.options)
  defp respond(:voices, http, %{method: "POST"} = request), do: Voices.respond(http.options, request)
  defp respond(:voices, http, request), do: Catalogue.voices(http.options, request.query)
  defp respond(:playground, _http, _request), do: Pages.playground()
  defp respond(:player, _http, _request), do: Pages.player()
  defp respond(:openapi, _http, _request), do: Pages.openapi()
  defp respond(:health, _http, _request), do: Response.json(200, %{status: "ok"})
  defp respond(:ready, http, _request), do: Status.ready(http.options)
  defp respond(:metrics, http, _request), do: Status.metrics(http.options, http.metrics)

  defp cors(nil), do: []
  defp cors("*"), do: [{"access-control-allow-origin", "*"} | exposed()]
  defp cors(origin), do: [{"access-control-allow-origin", origin}, {"vary", "origin"} | exposed()]

  defp exposed do
    [
      {"access-control-expose-headers",
       "retry-after, x-chatterbex-ignored, x-chatterbex-model, x-chatterbex-sample-rate"}
    ]
  end

  defimpl Inspect do
    # The options hold the API key.
    def inspect(_http, _options), do: "#Chatterbex.HTTP<>"
  end
end
