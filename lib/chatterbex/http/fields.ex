defmodule Chatterbex.HTTP.Fields do
  @moduledoc false
  # The body of a request for speech, checked field by field.

  alias Chatterbex.HTTP.{Encoding, Request, Response}
  alias Chatterbex.JSON
  alias Chatterbex.Options

  # Fields that are options of the library with the same name. The library checks whether a model has them, and their
  # range.
  @options ~w(seed language temperature top_p top_k min_p repetition_penalty cfg_weight exaggeration max_tokens
              sentence_pause paragraph_pause)a
  @passed Map.new(@options, &{Atom.to_string(&1), &1})

  @fields ~w(input model voice response_format speed stream_format instructions)

  @type t :: %{
          input: String.t(),
          model: String.t() | nil,
          voice: String.t() | nil,
          format: atom,
          speed: float,
          sse: boolean,
          ignored: [String.t()],
          options: keyword
        }

  @spec parse(Request.t(), map) :: {:ok, t} | {:error, Response.t()}
  def parse(%Request{} = request, options) do
    with :ok <- json?(Request.header(request, "content-type")),
         {:ok, fields} <- decode(request.body),
         fields = for({name, value} <- fields, value != nil, into: %{}, do: {name, value}),
         {:ok, passed} <- known(fields, options.unknown_fields),
         {:ok, input} <- input(fields["input"], options.max_input),
         {:ok, model} <- string("model", fields["model"]),
         {:ok, voice} <- voice(fields["voice"]),
         {:ok, format} <- format(fields["response_format"]),
         {:ok, speed} <- speed(fields["speed"]),
         {:ok, sse} <- sse(fields["stream_format"]),
         {:ok, instructions} <- string("instructions", fields["instructions"]) do
      {:ok,
       %{
         input: input,
         model: model,
         voice: voice,
         format: format,
         speed: speed,
         sse: sse,
         ignored: if(instructions in [nil, ""], do: [], else: ["instructions"]),
         options: passed
       }}
    end
  end

  # A web page can send forms and plain text to any server without permission, which is another reason to refuse them.
  defp json?(type) do
    # It may contain any bytes.
    case type && type |> :binary.split(";") |> hd() |> String.downcase(:ascii) |> String.trim_trailing(" ") do
      "application/json" -> :ok
      _other -> {:error, Response.error(415, "the body must be JSON: send `Content-Type: application/json`")}
    end
  end

  # Parsers put a value that is not an object under this name.
  defp decode(%{"_json" => _no_object}), do: invalid(nil, "the body must be a JSON object", "invalid_json")
  defp decode(%{} = fields), do: {:ok, fields}

  defp decode(body) do
    case JSON.decode(body) do
      {:ok, %{} = fields} -> {:ok, fields}
      {:ok, _other} -> invalid(nil, "the body must be a JSON object", "invalid_json")
      {:error, why} -> invalid(nil, "the body is not valid JSON: #{why}", "invalid_json")
    end
  end

  defp known(fields, unknown) do
    Enum.reduce_while(fields, {:ok, []}, fn {name, value}, {:ok, passed} ->
      case {@passed[name], unknown} do
        _known when name in @fields -> {:cont, {:ok, passed}}
        {option, :pass} when option != nil -> {:cont, {:ok, [{option, value} | passed]}}
        _unknown -> {:halt, unknown(name, unknown)}
      end
    end)
  end

  defp unknown(name, unknown) do
    names = if unknown == :pass, do: @fields ++ Enum.map(@options, &Atom.to_string/1), else: @fields
    shown = name |> String.to_charlist() |> Enum.take(60) |> List.to_string()

    invalid(
      shown,
      "there is no field #{inspect(shown)}.#{Options.did_you_mean(shown, names)} " <>
        "The fields are #{Enum.join(names, ", ")}.",
      "unknown_parameter"
    )
  end

  defp input(nil, _max),
    do: invalid("input", "input is missing: the text to speak", "missing_required_parameter")

  defp input(text, max) when is_binary(text) do
    if characters(text) <= max,
      do: {:ok, text},
      else: invalid("input", "input must be at most #{max} characters long", "string_above_max_length")
  end

  defp input(_other, _max), do: invalid("input", "input must be a string", "invalid_type")

  # Code points, as OpenAI and Python count.
  defp characters(text), do: for(<<_character::utf8 <- text>>, reduce: 0, do: (count -> count + 1))

  defp string(_name, value) when is_binary(value) or is_nil(value), do: {:ok, value}
  defp string(name, _value), do: invalid(name, "#{name} must be a string", "invalid_type")

  defp voice(%{"id" => id} = voice) when is_binary(id) and map_size(voice) == 1, do: {:ok, id}
  defp voice(value) when is_binary(value) or is_nil(value), do: {:ok, value}

  defp voice(_other),
    do: invalid("voice", ~s(voice must be a name, as in "default" or {"id": "default"}), "invalid_type")

  defp format(nil), do: {:ok, Encoding.default()}

  defp format(name) do
    case Encoding.format(name) do
      {:ok, format} -> {:ok, format}
      {:error, message} -> invalid("response_format", message)
    end
  end

  defp speed(nil), do: {:ok, 1.0}
  defp speed(speed) when is_number(speed) and speed >= 0.25 and speed <= 4, do: {:ok, speed * 1.0}
  defp speed(_other), do: invalid("speed", "speed must be a number from 0.25 to 4.0")

  defp sse(value) when value in [nil, "audio"], do: {:ok, false}
  defp sse("sse"), do: {:ok, true}
  defp sse(_other), do: invalid("stream_format", ~s(stream_format must be "audio" or "sse"))

  defp invalid(param, message, code \\ "invalid_value"),
    do: {:error, Response.error(400, message, param: param, code: code)}
end
