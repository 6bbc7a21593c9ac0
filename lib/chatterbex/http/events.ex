defmodule Chatterbex.HTTP.Events do
  @moduledoc false
  # Speech as server-sent events, in OpenAI's form.

  alias Chatterbex.Audio
  alias Chatterbex.HTTP.Encoding

  # The rate of Chatterbox models.
  @tokens_a_second 25

  @doc """
  The audio of an Enumerable as events. The usage in the last one counts the characters of the text, and 25 tokens for a
  second of audio.
  """
  @spec stream(Enumerable.t(), map) :: Enumerable.t()
  def stream(audio, fields) do
    millis = :counters.new(1, [])

    audio
    |> Stream.each(&:counters.add(millis, 1, round(Audio.duration(&1) * 1_000)))
    |> Encoding.stream(fields.format)
    |> Stream.map(&delta/1)
    |> Stream.concat(Stream.map([fields.input], &done(&1, :counters.get(millis, 1))))
  end

  defp delta(bytes) do
    audio = bytes |> IO.iodata_to_binary() |> Base.encode64()
    [~s(data: {"type":"speech.audio.delta","audio":"), audio, ~s("}\n\n)]
  end

  defp done(input, millis) do
    text = String.length(input)
    audio = ceil(millis * @tokens_a_second / 1_000)

    ~s(data: {"type":"speech.audio.done","usage":{"input_tokens":#{text},"output_tokens":#{audio},) <>
      ~s("total_tokens":#{text + audio}}}\n\n)
  end
end
