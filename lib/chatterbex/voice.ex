defmodule Chatterbex.Voice do
  @moduledoc """
  A voice to speak in.
  """

  alias Chatterbex.{Audio, Error, Model}

  @enforce_keys [:data, :family]
  defstruct [:data, :family, :name, metadata: %{}]

  @typedoc """
  - `data`: the voice as the bytes of a safetensors file
  - `family`: of the models that understand it
  """
  @type t :: %__MODULE__{data: binary, family: String.t(), name: String.t() | nil, metadata: map}

  # The option `:voice` as the model takes it.
  @doc false
  @spec resolve(term, Model.t()) :: {:ok, term} | {:error, Error.t()}
  def resolve(nil, _model), do: {:ok, nil}

  def resolve(%__MODULE__{family: family, data: data}, %Model{voice_family: family}),
    do: {:ok, %{"saved" => {:bytes, data}}}

  def resolve(%__MODULE__{} = voice, %Model{voice_family: nil} = model), do: no_voice(voice.name, model)

  def resolve(%__MODULE__{} = voice, model) do
    {:error,
     Error.new(
       :not_supported,
       "the voice was made for the models of the family #{voice.family}, and #{inspect(model.name)} is of the " <>
         "family #{model.voice_family}. Make it again with this model: Chatterbex.Voice.clone/3.",
       %{family: voice.family, needed: model.voice_family}
     )}
  end

  def resolve(%Audio{} = audio, %Model{voice_family: nil} = model), do: no_voice(audio, model)

  def resolve(%Audio{} = audio, _model),
    do: {:ok, %{"samples" => {:bytes, audio.samples}, "sample_rate" => audio.sample_rate}}

  def resolve(name, model) when is_binary(name) do
    cond do
      name in model.voices -> {:ok, name}
      is_nil(model.voice_family) -> no_voice(name, model)
      true -> with {:ok, audio} <- Audio.read(name), do: resolve(audio, model)
    end
  end

  defp no_voice(voice, model) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(model.name)} has no voice #{inspect(voice)}. " <>
         "Its voices: #{Enum.map_join(model.voices, ", ", &inspect/1)}.",
       %{voice: voice, voices: model.voices}
     )}
  end
end
