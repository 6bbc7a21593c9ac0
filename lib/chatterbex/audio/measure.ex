defmodule Chatterbex.Audio.Measure do
  @moduledoc false
  # Measurements and plots of audio.

  alias Chatterbex.{Audio, Error, Native, Options}
  alias Chatterbex.Audio.Samples

  @spec loudness(Audio.t()) :: {:ok, float | :silent} | {:error, Error.t()}
  def loudness(audio) do
    with :ok <- Samples.check(audio),
         measured = Native.Audio.loudness(audio.samples, audio.channels, audio.sample_rate),
         {:ok, loudness} <- Samples.from_native(measured),
         do: {:ok, loudness || :silent}
  end

  @spec plot(Audio.t(), keyword) :: {:ok, binary} | {:error, Error.t()}
  def plot(audio, options) do
    with {:ok, options} <- Options.validate(:plot, options), :ok <- Samples.check(audio) do
      size = {options.width, options.height}

      audio.samples
      |> Native.Audio.plot(audio.channels, audio.sample_rate, options.show, options.format, size)
      |> Samples.from_native()
    end
  end
end
