defmodule Chatterbex.Audio.Change do
  @moduledoc false
  # Audio made from other audio.

  alias Chatterbex.{Audio, Error, Native, Options}
  alias Chatterbex.Audio.Samples
  alias Chatterbex.Options.Schema
  alias Chatterbex.Speech.Metadata

  @typep result :: {:ok, Audio.t()} | {:error, Error.t()}

  # Two gibibytes: more than 6 hours at 24 kHz.
  @max_samples 0x20000000

  @spec resample(Audio.t(), term) :: result
  def resample(audio, rate) do
    with {:ok, rate} <- Options.value("a sample rate", {:integer, 1_000, 768_000}, rate),
         :ok <- Samples.check(audio) do
      audio.samples
      |> Native.Audio.resample(audio.channels, audio.sample_rate, rate)
      |> Samples.put(%{audio | sample_rate: rate})
    end
  end

  @spec mono(Audio.t()) :: result
  def mono(audio) do
    with :ok <- Samples.check(audio),
         do: audio.samples |> Native.Audio.mono(audio.channels) |> Samples.put(%{audio | channels: 1})
  end

  @doc """
  Joins a list of audio. `audio?` says whether something is audio.
  """
  @spec concat(term, (term -> boolean)) :: result
  def concat([], _audio?),
    do: {:error, Error.new(:invalid_audio, "there is no audio to join: the list is empty")}

  def concat(parts, audio?) do
    with :ok <- alike(parts, nil, 1, audio?) do
      parts
      |> Enum.map(& &1.samples)
      |> Native.Audio.concat()
      |> Samples.put(%{hd(parts) | metadata: Metadata.common(parts)})
    end
  end

  defp alike([], _first, _number, _audio?), do: :ok

  defp alike([audio | rest], first, number, audio?) do
    with true <- audio?.(audio), :ok <- Samples.check(audio), :ok <- form(audio, first || audio, number) do
      alike(rest, first || audio, number + 1, audio?)
    else
      false -> {:error, no_list(audio)}
      {:error, error} -> {:error, error}
    end
  end

  defp alike(other, _first, _number, _audio?), do: {:error, no_list(other)}

  defp form(%{sample_rate: rate, channels: channels}, %{sample_rate: rate, channels: channels}, _), do: :ok

  defp form(audio, first, number) do
    {:error,
     Error.new(
       :invalid_audio,
       "all parts must have the same rate and channels: the first has #{form(first)}, number #{number} has " <>
         "#{form(audio)}. Convert them first with Chatterbex.Audio.resample/2 and Chatterbex.Audio.mono/1.",
       %{number: number, sample_rate: audio.sample_rate, channels: audio.channels}
     )}
  end

  defp form(%{sample_rate: rate, channels: 1}), do: "#{rate} Hz and 1 channel"
  defp form(%{sample_rate: rate, channels: channels}), do: "#{rate} Hz and #{channels} channels"

  defp no_list(got),
    do:
      Error.new(
        :invalid_audio,
        "the parts to join must be a list of Chatterbex.Audio, got #{Schema.show(got)}"
      )

  @doc """
  The fields of silent audio.
  """
  @spec silence(term, keyword) :: {:ok, map} | {:error, Error.t()}
  def silence(milliseconds, options) do
    with {:ok, milliseconds} <- milliseconds("the length of silence", milliseconds),
         {:ok, options} <- Options.validate(:silence, options),
         samples = Samples.frames(milliseconds, options.sample_rate) * options.channels,
         :ok <- bounded(samples) do
      samples
      |> Native.Audio.silence()
      |> Samples.put(%{samples: "", sample_rate: options.sample_rate, channels: options.channels})
    end
  end

  defp bounded(samples) when samples <= @max_samples, do: :ok

  defp bounded(samples) do
    {:error,
     Error.new(
       :invalid_option,
       "this silence would have #{samples} samples; the most is #{@max_samples}. Make it shorter, or join several."
     )}
  end

  @spec trim(Audio.t(), keyword) :: result
  def trim(audio, options) do
    with {:ok, options} <- Options.validate(:trim, options), :ok <- Samples.check(audio) do
      margin = Samples.frames(options.margin, audio.sample_rate)
      audio.samples |> Native.Audio.trim(audio.channels, options.threshold, margin) |> Samples.put(audio)
    end
  end

  @spec fade(Audio.t(), term, term) :: result
  def fade(audio, side, milliseconds) do
    with {:ok, side} <- Options.value("the side of a fade", {:in, [:in, :out, :both]}, side),
         {:ok, milliseconds} <- milliseconds("the length of a fade", milliseconds),
         :ok <- Samples.check(audio) do
      frames = Samples.frames(milliseconds, audio.sample_rate)
      audio.samples |> Native.Audio.fade(audio.channels, side, frames) |> Samples.put(audio)
    end
  end

  @spec normalize(Audio.t(), keyword) :: result
  def normalize(audio, options) do
    with {:ok, options} <- Options.validate(:normalize, options), :ok <- Samples.check(audio) do
      audio.samples
      |> Native.Audio.normalize(audio.channels, audio.sample_rate, options.loudness, options.peak)
      |> Samples.put(audio)
    end
  end

  defp milliseconds(what, value),
    do: Options.value("#{what}, in milliseconds,", {:integer, 0, 3_600_000}, value)
end
