defmodule Chatterbex.Voice.Saved do
  @moduledoc false
  # A voice as the bytes of a file. The model makes the tensors; the marks describe the voice.
  #
  # A name in the data never becomes an atom: only known names are looked up.

  alias Chatterbex.Voice.{Quality, Safetensors}

  # The fields of `Chatterbex.Voice`.
  @enforce_keys [:data, :family, :name, :metadata]
  defstruct @enforce_keys

  @type t :: %__MODULE__{data: binary, family: String.t(), name: String.t() | nil, metadata: map}

  # The value of `chatterbex_voice` in files of this version.
  @format "1"
  @max_bytes 1_048_576

  @strings Map.new(~w(note model sample_hash)a, &{Atom.to_string(&1), &1})
  @numbers Map.new(~w(seconds sample_rate peak loudness clipped quiet)a, &{Atom.to_string(&1), &1})

  @doc """
  The voice that a model made, with marks for its name, its note and the figures of its recording.
  """
  @spec new(binary, map) :: {:ok, t} | {:error, String.t()}
  def new(data, marks) do
    with {:ok, _voice} <- parse(data) do
      marks = for {name, value} <- marks, not is_nil(value), into: %{}, do: {name, to_string(value)}
      data |> Safetensors.seal(marks) |> parse()
    end
  end

  @doc """
  The voice in the bytes of a file; otherwise what is wrong, to follow "it".
  """
  @spec read(binary) :: {:ok, t} | {:error, String.t()}
  def read(data) do
    with {:ok, voice} <- parse(data),
         {:ok, marks} <- Safetensors.marks(data),
         :ok <- Safetensors.sealed(data, marks),
         do: {:ok, voice}
  end

  @doc """
  Like `read/1`, but the tensors may have changed since they were saved.
  """
  @spec parse(binary) :: {:ok, t} | {:error, String.t()}
  def parse(data) when byte_size(data) > @max_bytes,
    do: {:error, "has #{byte_size(data)} bytes; a saved voice has at most #{@max_bytes}"}

  def parse(data) do
    case Safetensors.marks(data) do
      {:ok, marks} -> voice(data, marks)
      {:error, why} -> {:error, foreign(data) || why}
    end
  end

  # What kind of file it is instead, if that is known.
  defp foreign(""), do: "is empty"

  defp foreign(<<magic::binary-size(4), _rest::binary>>) when magic in ["RIFF", "RF64", "fLaC", "OggS"],
    do: "is a recording: give it the extension of its format, or make a voice from it"

  # A zip file, as torch.save writes them, and a bare pickle.
  defp foreign(<<"PK", 3, 4, _rest::binary>>), do: pickle()
  defp foreign(<<0x80, protocol, _rest::binary>>) when protocol in 2..5, do: pickle()
  defp foreign(_data), do: nil

  defp pickle,
    do: "is a pickle, which could run any code, so it is not opened: make a voice from the recording instead"

  defp voice(data, %{"chatterbex_voice" => @format, "family" => family} = marks) do
    metadata =
      %{note: nil, model: nil, sample_hash: nil}
      |> Map.merge(for {mark, name} <- @strings, value = marks[mark], into: %{}, do: {name, value})
      |> Map.merge(for {mark, name} <- @numbers, value = number(marks[mark]), into: %{}, do: {name, value})

    metadata = Map.put(metadata, :warnings, Quality.warnings(metadata))
    {:ok, %__MODULE__{data: data, family: family, name: marks["name"], metadata: metadata}}
  end

  defp voice(_data, %{"chatterbex_voice" => format}) when format != @format,
    do:
      {:error, "was made by another version of Chatterbex (its format is #{inspect(format)}, not #{@format})"}

  defp voice(_data, _marks), do: {:error, "is a safetensors file, but not a voice"}

  defp number(nil), do: nil

  defp number(text) do
    with :error <- whole(Integer.parse(text)), :error <- whole(Float.parse(text)), do: nil
  end

  defp whole({number, ""}), do: number
  defp whole(_other), do: :error
end
