defmodule Chatterbex.Audio.Measure do
  @moduledoc false
  # What can be said of audio.

  alias Chatterbex.{Audio, Error, Native}
  alias Chatterbex.Audio.Samples

  @spec loudness(Audio.t()) :: {:ok, float | :silent} | {:error, Error.t()}
  def loudness(audio) do
    with :ok <- Samples.check(audio),
         measured = Native.Audio.loudness(audio.samples, audio.channels, audio.sample_rate),
         {:ok, loudness} <- Samples.from_native(measured),
         do: {:ok, loudness || :silent}
  end
end
