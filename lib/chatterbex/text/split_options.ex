defmodule Chatterbex.Text.SplitOptions do
  @moduledoc false
  # Checks the options of `Chatterbex.Text`: by the schema, and by rules that only texts have.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Options.Schema
  alias Chatterbex.Text.Abbreviations

  @doc """
  Checks the options of a group and fills in the defaults.
  """
  @spec validate(:sentences | :chunks | :chunk_stream, term) :: {:ok, map} | {:error, Error.t()}
  def validate(group, options) do
    with {:ok, options} <- Options.validate(group, options),
         {:ok, language} <- language(options.language),
         do: fits(%{options | language: language})
  end

  # "en", :en, "en-US" and "pt_BR" name a language.
  defp language(language) do
    with :error <- language |> to_string() |> Options.language_code() |> Abbreviations.fetch() do
      {:error,
       Error.new(
         :unknown_language,
         "the sentences of #{Schema.show(language)} are not known. " <>
           "The languages are #{Enum.join(Abbreviations.languages(), ", ")}.",
         %{language: language, languages: Abbreviations.languages()}
       )}
    end
  end

  # A tag is never cut, so it has to fit.
  defp fits(%{sounds: sounds, max: max} = options) do
    case Enum.find(sounds, &(String.length(&1) + 2 > max)) do
      nil ->
        {:ok, options}

      sound ->
        {:error,
         Error.new(:invalid_option, "the sound [#{sound}] is longer than option :max, which is #{max}")}
    end
  end

  defp fits(options), do: {:ok, options}
end
