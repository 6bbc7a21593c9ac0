defmodule Chatterbex.Audio.Samples do
  @moduledoc false
  # Audio on its way to the NIFs and back.

  alias Chatterbex.{Audio, Error, Options}

  @doc """
  Whether the samples match the struct. The header of WAV limits the rate and the channels.
  """
  @spec check(Audio.t()) :: :ok | {:error, Error.t()}
  def check(%{samples: samples, sample_rate: rate, channels: channels})
      when is_binary(samples) and rate in 1..0xFFFFFFFF and channels in 1..0xFFFF and
             rem(byte_size(samples), 4 * channels) == 0,
      do: :ok

  def check(audio) do
    # As a list: the order of a map's keys is not the same on every OTP.
    got = [sample_rate: audio.sample_rate, channels: audio.channels, samples: audio.samples]

    {:error,
     Error.new(
       :invalid_audio,
       "this is not audio: samples must be a binary of 32-bit floats in whole frames, sample_rate and channels " <>
         "whole numbers above 0, got #{Options.Schema.show(got)}"
     )}
  end

  @doc """
  Puts the samples that a NIF returned into audio.
  """
  @spec put({:ok, binary} | {:error, tuple}, Audio.t()) :: {:ok, Audio.t()} | {:error, Error.t()}
  def put(result, audio) do
    with {:ok, samples} <- from_native(result), do: {:ok, %{audio | samples: samples}}
  end

  @spec from_native({:ok, value} | {:error, tuple}) :: {:ok, value} | {:error, Error.t()} when value: term
  def from_native({:ok, value}), do: {:ok, value}
  def from_native({:error, error}), do: {:error, Error.from_native(error)}

  @doc """
  The number of frames in the given milliseconds.
  """
  @spec frames(non_neg_integer, pos_integer) :: non_neg_integer
  def frames(milliseconds, rate), do: div(milliseconds * rate, 1000)
end
