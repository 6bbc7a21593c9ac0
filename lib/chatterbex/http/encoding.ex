defmodule Chatterbex.HTTP.Encoding do
  @moduledoc false
  # Audio as it comes to bytes as they go out.

  alias Chatterbex.Audio

  @formats %{"wav" => :wav, "pcm" => :pcm}
  @types %{wav: "audio/wav", pcm: "audio/pcm"}

  @type format :: :wav | :pcm

  @doc """
  The format where a request names none.
  """
  @spec default() :: format
  def default, do: :wav

  @spec format(term) :: {:ok, format} | {:error, String.t()}
  def format(name) do
    with :error <- Map.fetch(@formats, name) do
      names = @formats |> Map.keys() |> Enum.sort() |> Enum.map_join(", ", &inspect/1)
      {:error, "response_format must be one of #{names}"}
    end
  end

  @spec content_type(format) :: String.t()
  def content_type(format), do: Map.fetch!(@types, format)

  @doc """
  The audio of an Enumerable, which must all be of one form, as an Enumerable of iodata.
  """
  @spec stream(Enumerable.t(), format) :: Enumerable.t()
  def stream(audio, format) do
    Stream.transform(audio, true, fn part, first? ->
      {[encode(part, format, first?)], false}
    end)
  end

  defp encode(audio, :pcm, _first?), do: pcm(audio)
  defp encode(audio, :wav, true), do: [wav_header(audio), pcm(audio)]
  defp encode(audio, :wav, false), do: pcm(audio)

  defp pcm(audio) do
    case Audio.to_pcm16(audio) do
      {:ok, pcm} -> pcm
      {:error, error} -> raise error
    end
  end

  # How long it will be is not known: both sizes say "to the end", as pipes of ffmpeg and OpenAI do.
  defp wav_header(%Audio{sample_rate: rate, channels: channels}) do
    <<"RIFF", 0xFFFFFFFF::32-little, "WAVE", "fmt ", 16::32-little, 1::16-little, channels::16-little,
      rate::32-little, rate * channels * 2::32-little, channels * 2::16-little, 16::16-little, "data",
      0xFFFFFFFF::32-little>>
  end
end
