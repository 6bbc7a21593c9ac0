defmodule Chatterbex.HTTP.Encoding do
  @moduledoc false
  # Encodes audio as it arrives.

  alias Chatterbex.Audio.Encoder
  alias Chatterbex.{Error, Options}

  @formats %{"mp3" => :mp3, "opus" => :opus, "flac" => :flac, "wav" => :wav, "pcm" => :pcm}

  @types %{
    mp3: "audio/mpeg",
    opus: "audio/ogg",
    flac: "audio/flac",
    wav: "audio/wav",
    pcm: "audio/pcm"
  }

  @doc """
  The format if a request does not name one.
  """
  @spec default() :: Encoder.format()
  def default, do: :mp3

  @spec format(term) :: {:ok, Encoder.format()} | {:error, String.t()}
  def format("aac"),
    do: {:error, "response_format aac is not supported: there is no free encoder for it. #{one_of()}"}

  def format(name) do
    with :error <- Map.fetch(@formats, name), do: {:error, one_of()}
  end

  defp one_of, do: "response_format must be one of mp3, opus, flac, wav and pcm"

  @spec content_type(Encoder.format()) :: String.t()
  def content_type(format), do: Map.fetch!(@types, format)

  @doc """
  Turns an Enumerable of audio, all in one form, into an Enumerable of binaries. Raises `Chatterbex.Error`.
  """
  @spec stream(Enumerable.t(), Encoder.format()) :: Enumerable.t()
  def stream(audio, format) do
    Stream.transform(audio, fn -> nil end, &push(&1, &2, format), &finish/1, fn _encoder -> :ok end)
  end

  defp push(audio, nil, format) do
    encoder = Error.unwrap!(Encoder.new(format, audio.sample_rate, audio.channels, options(format)))
    push(audio, encoder, format)
  end

  defp push(audio, encoder, _format), do: {part(Error.unwrap!(Encoder.push(encoder, audio))), encoder}

  defp finish(nil), do: {[], nil}

  # Bytes that were sent cannot be changed, so the length stays unknown.
  defp finish(encoder) do
    {bytes, _patches} = Error.unwrap!(Encoder.finish(encoder))
    {part(bytes), nil}
  end

  defp part(""), do: []
  defp part(bytes), do: [bytes]

  defp options(:pcm), do: %{}

  defp options(format) do
    {:ok, options} = Options.validate(format, [])
    options
  end
end
