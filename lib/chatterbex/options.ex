defmodule Chatterbex.Options do
  @moduledoc """
  All options of this library. One schema checks them and generates their documentation.

  ## Options of a server

  Given to `Chatterbex.start_link/1`, or for every server at once in the configuration
  (`config :chatterbex, model: :hibari, max_queue: 50`).

  #{Chatterbex.Options.Schema.docs(:server)}

  ## Options of a pool

  Given to `Chatterbex.Pool.start_link/1`, in addition to those of a server.

  #{Chatterbex.Options.Schema.docs(:pool, [:size, :devices])}

  ## Options of a request

  Given to `Chatterbex.generate/2`. Options that list models work with those models only; other models refuse them.

  #{Chatterbex.Options.Schema.docs(:generate)}

  ## Options of a stream

  Given to `Chatterbex.stream/2` and `Chatterbex.stream_to/3`. Only the latter has `:max_unacked`.

  #{Chatterbex.Options.Schema.docs(:stream_to)}

  ## Options of a conversion

  Given to `Chatterbex.convert/2`.

  #{Chatterbex.Options.Schema.docs(:convert)}

  ## Options of a clone

  Given to `Chatterbex.Voice.clone/2`.

  #{Chatterbex.Options.Schema.docs(:clone)}

  ## Options of a list of voices

  Given to `Chatterbex.Voice.list/1`.

  #{Chatterbex.Options.Schema.docs(:voices)}

  ## Options about a server

  `Chatterbex.info/1` takes `:server`. `Chatterbex.await_ready/1` takes

  #{Chatterbex.Options.Schema.docs(:await_ready)}

  `Chatterbex.stop/1`

  #{Chatterbex.Options.Schema.docs(:stop)}

  and `Chatterbex.Pool.drain/2`

  #{Chatterbex.Options.Schema.docs(:drain)}

  ## Options of the default logger

  Given to `Chatterbex.Telemetry.attach_default_logger/1`.

  #{Chatterbex.Options.Schema.docs(:logger)}

  ## Options of a benchmark

  Given to `Chatterbex.Bench.run/1`.

  #{Chatterbex.Options.Schema.docs(:bench)}

  ## Options of a proof

  Given to `Chatterbex.Prove.run/1`.

  #{Chatterbex.Options.Schema.docs(:prove)}

  ## Options of a setup

  Given to `Chatterbex.Setup.run/1`.

  #{Chatterbex.Options.Schema.docs(:setup)}

  ## Options of an audio file

  Given to `Chatterbex.Audio.write/3`.

  #{Chatterbex.Options.Schema.docs(:write)}

  It also accepts the options of the format, as do `Chatterbex.Audio.to_format/3`, `Chatterbex.Audio.to_wav/2` and
  `Chatterbex.Audio.Writer`. WAV:

  #{Chatterbex.Options.Schema.docs(:wav)}

  FLAC:

  #{Chatterbex.Options.Schema.docs(:flac)}

  Ogg Opus:

  #{Chatterbex.Options.Schema.docs(:opus)}

  MP3:

  #{Chatterbex.Options.Schema.docs(:mp3)}

  ## Options of reading audio

  Given to `Chatterbex.Audio.read/2` and `Chatterbex.Audio.from_format/2`.

  #{Chatterbex.Options.Schema.docs(:read)}

  ## Options of silence

  Given to `Chatterbex.Audio.silence/2`.

  #{Chatterbex.Options.Schema.docs(:silence)}

  ## Options of trimming

  Given to `Chatterbex.Audio.trim/2`.

  #{Chatterbex.Options.Schema.docs(:trim)}

  ## Options of normalising

  Given to `Chatterbex.Audio.normalize/2`.

  #{Chatterbex.Options.Schema.docs(:normalize)}

  ## Options of a picture

  Given to `Chatterbex.Audio.plot/2`.

  #{Chatterbex.Options.Schema.docs(:plot)}
  """

  alias Chatterbex.{Error, Model}
  alias Chatterbex.Options.{Cast, Schema}

  @typedoc false
  @type group ::
          :bench
          | :http
          | :http_server
          | :setup
          | :prove
          | :server
          | :pool
          | :generate
          | :stream
          | :stream_to
          | :convert
          | :clone
          | :info
          | :await_ready
          | :stop
          | :drain
          | :voices
          | :logger
          | :test
          | :sentences
          | :chunks
          | :chunk_stream
          | :write
          | :wav
          | :flac
          | :opus
          | :mp3
          | :plot
          | :read
          | :silence
          | :trim
          | :normalize

  # Checks options against the schema of `group` and fills in the defaults.
  @doc false
  @spec validate(group, keyword) :: {:ok, map} | {:error, Error.t()}
  def validate(group, options) do
    schema = Schema.fetch(group)

    with :ok <- keyword(options, schema), :ok <- known(options, Keyword.keys(schema)) do
      Enum.reduce_while(schema, {:ok, %{}}, fn {name, spec}, {:ok, valid} ->
        case cast(options, name, spec) do
          {:ok, value} -> {:cont, {:ok, Map.put(valid, name, value)}}
          {:error, error} -> {:halt, {:error, error}}
        end
      end)
    end
  end

  # Checks that options are a keyword list with only these names. Names in `hidden` are allowed, but not listed in errors.
  @doc false
  @spec known(term, [atom], [atom]) :: :ok | {:error, Error.t()}
  def known(options, names, hidden \\ []) do
    cond do
      not Keyword.keyword?(options) ->
        {:error,
         Error.new(:invalid_option, "options must be a keyword list, got #{Schema.show(options)}", %{
           got: options
         })}

      name = Enum.find(Keyword.keys(options), &(&1 not in names and &1 not in hidden)) ->
        {:error, unknown(name, names, "unknown option", "options")}

      true ->
        :ok
    end
  end

  # The error for a name that is not one of `names`. `what` is the plural noun for them.
  @doc false
  @spec unknown(atom, [atom], String.t(), String.t()) :: Error.t()
  def unknown(name, names, unknown, what) do
    Error.new(
      :invalid_option,
      "#{unknown} #{inspect(name)}.#{did_you_mean(name, names)} The #{what} are #{list(names)}.",
      %{option: name, options: names}
    )
  end

  # Checks a value that is not an option, such as a rate. The message starts with `name`.
  @doc false
  @spec value(String.t(), term, term) :: {:ok, term} | {:error, Error.t()}
  def value(name, type, value) do
    with :error <- Cast.cast(type, value) do
      {:error,
       Error.new(:invalid_option, "#{name} must be #{Schema.describe(type)}, got #{Schema.show(value)}", %{
         got: value
       })}
    end
  end

  # Checks that `model` supports all generation options that were given.
  @doc false
  @spec supported(map, Model.t()) :: :ok | {:error, Error.t()}
  def supported(options, model) do
    specific = for {name, spec} <- Schema.fetch(:stream), spec[:specific], do: name

    case Enum.find(specific, &(not is_nil(options[&1]) and &1 not in model.options)) do
      nil -> language(options[:language], model)
      name -> {:error, not_supported(name, model)}
    end
  end

  # The options of a server as its model needs them. An option that the model cannot use is refused if it was given to
  # this server, and dropped if it is in the configuration, which applies to every server.
  @doc false
  @spec of_model(map, keyword, Model.t()) :: {:ok, map} | {:error, Error.t()}
  def of_model(options, given, model) do
    unused = unused(model)

    case Enum.find(unused, &(not is_nil(given[&1]))) do
      nil -> {:ok, Map.merge(options, Map.new(unused, &{&1, nil}))}
      name -> {:error, unused(name, model)}
    end
  end

  # The options of a server that a model does not use. A model of the user's own may use any of them.
  defp unused(%{python: own}) when own != nil, do: []

  defp unused(%{profile: "hibari"}) do
    [
      :checkpoint,
      :revision,
      :version,
      :language_pack,
      :flow,
      :flow_steps,
      :first_chunk_steps,
      :reference_seconds
    ]
  end

  defp unused(%{name: :multilingual}), do: []
  defp unused(%{name: name}) when name in [:turbo, :nano], do: [:version, :language_pack, :flow]
  defp unused(_model), do: [:version, :language_pack]

  defp unused(name, model) do
    Error.new(
      :not_supported,
      "the model #{inspect(model.name)} has no option #{inspect(name)}: #{why(name)}.",
      %{option: name, model: model.name}
    )
  end

  defp why(name) when name in [:version, :language_pack], do: "only :multilingual has it"
  defp why(:flow), do: "only :english, :multilingual and :conversion have it"

  defp why(name) when name in [:flow_steps, :first_chunk_steps, :reference_seconds],
    do: "only the Chatterbox models have it"

  defp why(_name), do: "this model comes with the setup, and has no files of its own"

  defp language(nil, _model), do: :ok
  defp language(_language, %{languages: []}), do: :ok

  defp language(language, model) do
    if language_code(language) in model.languages do
      :ok
    else
      {:error,
       Error.new(
         :unknown_language,
         "the model #{inspect(model.name)} does not speak #{inspect(language)}. It speaks #{Enum.join(model.languages, ", ")}.",
         %{language: language, languages: model.languages}
       )}
    end
  end

  # The sentence that lists a group's options.
  @doc false
  @spec names(group) :: String.t()
  def names(group), do: "The options are #{list(Keyword.keys(Schema.fetch(group)))}."

  # "de", "de-AT" and "DE_at" are the language "de".
  @doc false
  @spec language_code(String.t()) :: String.t()
  def language_code(language), do: language |> String.split(["-", "_"], parts: 2) |> hd() |> String.downcase()

  defp not_supported(name, model) do
    Error.new(
      :not_supported,
      "the model #{inspect(model.name)} has no option #{inspect(name)}. Its own options are #{list(model.options)}.",
      %{option: name, model: model.name}
    )
  end

  # The sentence to add to a message about a misspelt name: "" or " Did you mean :seed?".
  @doc false
  @spec did_you_mean(term, [atom | String.t()]) :: String.t()
  def did_you_mean(name, names) when is_atom(name) or is_binary(name) do
    nearest = Enum.max_by(names, &distance(&1, name), fn -> nil end)

    if nearest && distance(nearest, name) > 0.8, do: " Did you mean #{inspect(nearest)}?", else: ""
  end

  def did_you_mean(_name, _names), do: ""

  # `String.jaro_distance/2` raises for what is not UTF-8.
  defp distance(a, b) do
    [a, b] = Enum.map([a, b], &Kernel.to_string/1)
    if String.valid?(a) and String.valid?(b), do: String.jaro_distance(a, b), else: 0.0
  end

  defp keyword(options, schema) do
    if Keyword.keyword?(options) do
      :ok
    else
      example =
        cond do
          Cast.cast(:server, options) != :error -> ", as in [server: #{Schema.show(options)}]"
          Keyword.has_key?(schema, :seed) -> ", as in [seed: 7]"
          true -> ""
        end

      {:error,
       Error.new(
         :invalid_option,
         "options must be a keyword list#{example}, got #{Schema.show(options)}",
         %{got: options}
       )}
    end
  end

  defp cast(options, name, spec) do
    case Keyword.fetch(options, name) do
      :error -> {:ok, spec[:default]}
      {:ok, nil} -> {:ok, spec[:default]}
      {:ok, value} -> cast_value(value, name, spec)
    end
  end

  defp cast_value(value, name, spec) do
    case Cast.cast(spec[:type], value) do
      {:ok, value} ->
        {:ok, value}

      :error ->
        {:error,
         Error.new(
           :invalid_option,
           "option #{inspect(name)} must be #{Schema.describe(spec[:type])}, got #{Schema.show(value)}",
           %{option: name, got: value}
         )}
    end
  end

  defp list([]), do: "none"
  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)
end
