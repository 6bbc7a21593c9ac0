defmodule Chatterbex.Text.Options do
  @moduledoc false
  # The options of `Chatterbex.Text`, checked.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Options.Schema
  alias Chatterbex.Text.{Abbreviations, Markup}

  @shortest_max 20
  @longest_max 10_000
  @pauses {:integer, 0, Markup.longest_pause()}

  @chunks [
    language: [type: :language, default: "en"],
    max: [type: {:integer, @shortest_max, @longest_max}, default: 280],
    sentence_pause: [type: @pauses, default: 250],
    paragraph_pause: [type: @pauses, default: 700],
    group: [type: :boolean, default: true],
    sounds: [type: :sounds, default: []],
    unknown_sounds: [type: {:in, [:refuse, :drop]}, default: :refuse]
  ]

  @stream Keyword.update!(@chunks, :group, &Keyword.put(&1, :default, false))

  @sentences Keyword.take(@chunks, [:language])

  @doc """
  Checks the options of one of the functions and fills in the defaults.
  """
  @spec validate(:sentences | :chunks | :stream, term) :: {:ok, map} | {:error, Error.t()}
  def validate(function, options) do
    schema = schema(function)

    with :ok <- keyword(options), :ok <- known(options, schema), {:ok, valid} <- values(options, schema) do
      fits(valid)
    end
  end

  defp schema(:sentences), do: @sentences
  defp schema(:chunks), do: @chunks
  defp schema(:stream), do: @stream

  defp keyword(options) do
    if Keyword.keyword?(options),
      do: :ok,
      else: invalid("options must be a keyword list, as in [max: 200], got #{Schema.show(options)}")
  end

  defp known(options, schema) do
    names = Keyword.keys(schema)

    case Enum.find(Keyword.keys(options), &(&1 not in names)) do
      nil ->
        :ok

      name ->
        invalid(
          "unknown option #{inspect(name)}.#{Options.did_you_mean(name, names)} " <>
            "The options are #{Enum.map_join(names, ", ", &inspect/1)}."
        )
    end
  end

  defp values(options, schema) do
    Enum.reduce_while(schema, {:ok, %{}}, fn {name, spec}, {:ok, valid} ->
      case value(Keyword.get(options, name), spec) do
        {:ok, value} -> {:cont, {:ok, Map.put(valid, name, value)}}
        {:error, error} -> {:halt, {:error, error}}
        {:expected, what} -> {:halt, wrong(name, what, options[name])}
      end
    end)
  end

  defp value(nil, spec), do: value(spec[:default], spec)
  defp value(value, [{:type, :language} | _]), do: language(value)
  defp value(value, [{:type, :sounds} | _]), do: sounds(value)

  defp value(value, spec) do
    with :error <- Schema.cast(spec[:type], value), do: {:expected, Schema.describe(spec[:type])}
  end

  # "en", :en, "en-US" and "pt_BR" name a language.
  defp language(language) when is_binary(language) or is_atom(language) do
    code = language |> to_string() |> Options.language_code()

    with :error <- Abbreviations.fetch(code) do
      {:error,
       Error.new(
         :unknown_language,
         "the sentences of #{Schema.show(language)} are not known. " <>
           "The languages are #{Enum.join(Abbreviations.languages(), ", ")}.",
         %{language: language, languages: Abbreviations.languages()}
       )}
    end
  end

  defp language(_language), do: {:expected, ~s(the code of a language, as in "en")}

  defp sounds(sounds) do
    if is_list(sounds) and Enum.all?(sounds, &sound?/1),
      do: {:ok, Enum.map(sounds, &String.downcase/1)},
      else: {:expected, ~s(a list of names without brackets, as in ["laugh", "sigh"])}
  end

  defp sound?(sound),
    do: is_binary(sound) and String.valid?(sound) and sound =~ ~r/^[^\s\[\]]+( [^\s\[\]]+)*$/u

  # A tag is never cut, so it has to fit.
  defp fits(%{sounds: sounds, max: max} = valid) do
    case Enum.find(sounds, &(String.length(&1) + 2 > max)) do
      nil -> {:ok, valid}
      sound -> invalid("the sound [#{sound}] is longer than option :max, which is #{max}")
    end
  end

  defp fits(valid), do: {:ok, valid}

  defp wrong(name, what, got),
    do: invalid("option #{inspect(name)} must be #{what}, got #{Schema.show(got)}", %{option: name, got: got})

  defp invalid(message, details \\ %{}), do: {:error, Error.new(:invalid_option, message, details)}
end
