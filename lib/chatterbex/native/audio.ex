defmodule Chatterbex.Native.Audio do
  @moduledoc false
  # The NIFs of native/audio. They need no Python: a node that has none can read and write audio.

  alias Chatterbex.Native.Library

  @typep error :: {:error, {atom, String.t(), map}}

  @typep decoded :: %{samples: binary, sample_rate: pos_integer, channels: pos_integer}

  @spec wav_encode(binary, pos_integer, pos_integer, :s16 | :s24 | :f32) :: {:ok, binary} | error
  def wav_encode(samples, sample_rate, channels, format) do
    first_call(fn -> __MODULE__.wav_encode(samples, sample_rate, channels, format) end)
  end

  @spec flac_encode(binary, pos_integer, pos_integer, 16 | 24) :: {:ok, binary} | error
  def flac_encode(samples, sample_rate, channels, bits) do
    first_call(fn -> __MODULE__.flac_encode(samples, sample_rate, channels, bits) end)
  end

  @spec opus_encode(binary, pos_integer, pos_integer, pos_integer) :: {:ok, binary} | error
  def opus_encode(samples, sample_rate, channels, bitrate) do
    first_call(fn -> __MODULE__.opus_encode(samples, sample_rate, channels, bitrate) end)
  end

  @typep encoder :: reference
  @typep stretcher :: reference

  @spec encoder_new(atom, pos_integer, pos_integer, non_neg_integer) :: {:ok, encoder} | error
  def encoder_new(format, sample_rate, channels, quality) do
    first_call(fn -> __MODULE__.encoder_new(format, sample_rate, channels, quality) end)
  end

  @spec stretcher_new(float, pos_integer, pos_integer) :: {:ok, stretcher} | error
  def stretcher_new(factor, sample_rate, channels) do
    first_call(fn -> __MODULE__.stretcher_new(factor, sample_rate, channels) end)
  end

  @spec flow_push(encoder | stretcher, binary) :: {:ok, binary} | error
  def flow_push(flow, samples), do: first_call(fn -> __MODULE__.flow_push(flow, samples) end)

  @spec flow_finish(encoder | stretcher) :: {:ok, {binary, [{non_neg_integer, binary}]}} | error
  def flow_finish(flow), do: first_call(fn -> __MODULE__.flow_finish(flow) end)

  @spec wav_decode(binary, pos_integer, pos_integer) :: {:ok, decoded} | error
  def wav_decode(wav, max_seconds, max_samples) do
    first_call(fn -> __MODULE__.wav_decode(wav, max_seconds, max_samples) end)
  end

  @spec decode(binary, pos_integer, pos_integer) :: {:ok, decoded} | error
  def decode(file, max_seconds, max_samples) do
    first_call(fn -> __MODULE__.decode(file, max_seconds, max_samples) end)
  end

  @spec pcm16(binary) :: {:ok, binary} | error
  def pcm16(samples), do: first_call(fn -> __MODULE__.pcm16(samples) end)

  @spec mono(binary, pos_integer) :: {:ok, binary} | error
  def mono(samples, channels), do: first_call(fn -> __MODULE__.mono(samples, channels) end)

  @spec resample(binary, pos_integer, pos_integer, pos_integer) :: {:ok, binary} | error
  def resample(samples, channels, from, to) do
    first_call(fn -> __MODULE__.resample(samples, channels, from, to) end)
  end

  @spec concat([binary]) :: {:ok, binary} | error
  def concat(parts), do: first_call(fn -> __MODULE__.concat(parts) end)

  @spec silence(non_neg_integer) :: {:ok, binary} | error
  def silence(samples), do: first_call(fn -> __MODULE__.silence(samples) end)

  @spec trim(binary, pos_integer, float, non_neg_integer) :: {:ok, binary} | error
  def trim(samples, channels, threshold, margin) do
    first_call(fn -> __MODULE__.trim(samples, channels, threshold, margin) end)
  end

  @spec fade(binary, pos_integer, :in | :out | :both, non_neg_integer) :: {:ok, binary} | error
  def fade(samples, channels, side, frames) do
    first_call(fn -> __MODULE__.fade(samples, channels, side, frames) end)
  end

  @spec normalize(binary, pos_integer, pos_integer, float, float) :: {:ok, binary} | error
  def normalize(samples, channels, rate, loudness, peak) do
    first_call(fn -> __MODULE__.normalize(samples, channels, rate, loudness, peak) end)
  end

  @spec loudness(binary, pos_integer, pos_integer) :: {:ok, float | nil} | error
  def loudness(samples, channels, rate) do
    first_call(fn -> __MODULE__.loudness(samples, channels, rate) end)
  end

  @spec plot(binary, pos_integer, pos_integer, atom, :svg | :png, {pos_integer, pos_integer}) ::
          {:ok, binary} | error
  def plot(samples, channels, rate, show, format, size) do
    first_call(fn -> __MODULE__.plot(samples, channels, rate, show, format, size) end)
  end

  defp first_call(again) do
    Library.first_call(:audio, fn -> :erlang.load_nif(Library.path(:audio), 0) end, again)
  end
end
