defmodule Chatterbex.Audio.Encoder do
  @moduledoc false
  # Encodes a file as its audio arrives. Only a moment of audio is in memory.

  alias Chatterbex.{Audio, Error, Native}
  alias Chatterbex.Audio.Samples

  @enforce_keys [:encoder]
  defstruct [:encoder]

  @type format :: :pcm | :wav | :flac | :opus | :mp3
  @opaque t :: %__MODULE__{}

  @doc """
  Begins a file for audio of this form. `options` are those of the format, checked; `:pcm` has none.
  """
  @spec new(format, pos_integer, pos_integer, map) :: {:ok, t} | {:error, Error.t()}
  def new(format, sample_rate, channels, options) do
    {name, quality} = native(format, options)
    result = Native.Audio.encoder_new(name, sample_rate, channels, quality)
    with {:ok, encoder} <- Samples.from_native(result), do: {:ok, %__MODULE__{encoder: encoder}}
  end

  defp native(:pcm, _options), do: {:pcm, 0}
  defp native(:wav, %{encoding: :s16}), do: {:wav_s16, 0}
  defp native(:wav, %{encoding: :s24}), do: {:wav_s24, 0}
  defp native(:wav, %{encoding: :f32}), do: {:wav_f32, 0}
  defp native(:flac, %{encoding: :s16}), do: {:flac, 16}
  defp native(:flac, %{encoding: :s24}), do: {:flac, 24}
  defp native(:opus, options), do: {:opus, options.bitrate}
  defp native(:mp3, options), do: {:mp3, options.bitrate}

  @doc """
  Encodes more audio of the same form, and returns the bytes of the file that are ready.
  """
  @spec push(t, Audio.t()) :: {:ok, binary} | {:error, Error.t()}
  def push(%__MODULE__{encoder: encoder}, audio) do
    with :ok <- Samples.check(audio),
         do: encoder |> Native.Audio.flow_push(audio.samples) |> Samples.from_native()
  end

  @doc """
  Ends the file. Returns its last bytes, and bytes that replace earlier ones to state the length.
  """
  @spec finish(t) :: {:ok, {binary, [{non_neg_integer, binary}]}} | {:error, Error.t()}
  def finish(%__MODULE__{encoder: encoder}),
    do: encoder |> Native.Audio.flow_finish() |> Samples.from_native()

  @doc """
  All of a file at once.
  """
  @spec whole(format, Audio.t(), map) :: {:ok, binary} | {:error, Error.t()}
  def whole(format, audio, options) do
    with {:ok, encoder} <- new(format, audio.sample_rate, audio.channels, options),
         {:ok, bytes} <- push(encoder, audio),
         {:ok, {last, patches}} <- finish(encoder),
         do: {:ok, Enum.reduce(patches, bytes <> last, &patch/2)}
  end

  defp patch({place, patch}, bytes) do
    size = byte_size(patch)
    <<before::binary-size(place), _old::binary-size(size), rest::binary>> = bytes
    <<before::binary, patch::binary, rest::binary>>
  end
end
