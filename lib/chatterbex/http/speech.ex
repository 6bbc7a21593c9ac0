defmodule Chatterbex.HTTP.Speech do
  @moduledoc false
  # POST /v1/audio/speech.

  alias Chatterbex.{Audio, Error, Pull}
  alias Chatterbex.Audio.Stretcher

  alias Chatterbex.HTTP.{
    Backend,
    Catalogue,
    Counters,
    Encoding,
    ErrorResponse,
    Events,
    Fields,
    Request,
    Response
  }

  # The range of the option `:speed`.
  @slowest 0.5
  @fastest 2.0

  @doc """
  Returns with the first audio, so that a failure before it gets its own status.
  """
  @spec respond(map, Counters.t(), Request.t()) :: Response.t()
  def respond(options, metrics, %Request{} = request) do
    with {:ok, fields} <- Fields.parse(request, options),
         {:ok, name, server} <- Catalogue.server(options, fields.model),
         {:ok, voice} <- Catalogue.voice(server, fields.voice),
         {:ok, rate, audio} <- begin(server, fields, voice, options.timeout, metrics) do
      Counters.add(metrics, :characters, String.length(fields.input))

      %Response{
        status: 200,
        headers: headers(fields, name, rate),
        body: {:stream, audio |> counted(metrics) |> body(fields)}
      }
    else
      {:error, %Error{} = error} -> ErrorResponse.response(error)
      {:error, %Response{} = response} -> response
    end
  end

  defp begin(server, fields, voice, timeout, metrics) do
    options = [timeout: timeout] ++ fields.options
    options = if voice, do: [{:voice, voice} | options], else: options

    with {:ok, model} <- Backend.model(server),
         {paced, factor} = pace(fields.speed, model),
         {:ok, audio} <- Backend.stream(server, fields.input, paced ++ options),
         {:ok, audio} <- first(audio, metrics),
         do: {:ok, model.sample_rate, Stretcher.stream(audio, factor)}
  end

  # A model that can change its pace does so as far as it can; the sound is stretched for the rest.
  defp pace(speed, model) do
    if :speed in model.options and speed != 1.0 do
      own = speed |> max(@slowest) |> min(@fastest)
      {[speed: own], speed / own}
    else
      {[], speed}
    end
  end

  # Takes the first element, and returns a stream that starts with it. That stream can be read once.
  defp first(audio, metrics) do
    case audio |> Pull.open() |> Pull.next() do
      {:ok, part, rest} ->
        parts = Stream.resource(fn -> {:first, part, rest} end, &next/1, &close/1)
        {:ok, Stream.map(parts, &sound(&1, metrics))}

      :done ->
        {:error, Error.new(:generation_failed, "there was no audio")}
    end
  rescue
    error in Error -> {:error, error}
  end

  # An error closes its source: nothing is left to close after it.
  defp next({:first, part, rest}), do: {[part], rest}
  defp next(nil), do: {:halt, nil}

  defp next(rest) do
    case Pull.next(rest) do
      {:ok, part, rest} -> {[part], rest}
      :done -> {:halt, nil}
    end
  rescue
    error in Error -> {[error], nil}
  end

  defp close(nil), do: :ok
  defp close({:first, _part, rest}), do: Pull.close(rest)
  defp close(rest), do: Pull.close(rest)

  defp sound(%Audio{} = audio, _metrics), do: audio

  defp sound(%Error{} = error, metrics) do
    Counters.add(metrics, :failed, 1)
    raise error
  end

  defp counted(audio, metrics) do
    Stream.each(audio, &Counters.add(metrics, :audio_millis, round(Audio.duration(&1) * 1_000)))
  end

  defp body(audio, %{sse: true} = fields), do: Events.stream(audio, fields)
  defp body(audio, fields), do: Encoding.stream(audio, fields.format)

  defp headers(fields, name, rate) do
    type = if fields.sse, do: "text/event-stream", else: Encoding.content_type(fields.format)

    ignored =
      if fields.ignored == [], do: [], else: [{"x-chatterbex-ignored", Enum.join(fields.ignored, ", ")}]

    [
      {"content-type", type},
      {"cache-control", "no-store"},
      {"x-chatterbex-model", header(name)},
      {"x-chatterbex-sample-rate", Integer.to_string(rate)}
    ] ++ ignored
  end

  # The operator chooses the name of a model: whatever is in it, it must stay one header.
  defp header(name), do: URI.encode(name)
end
