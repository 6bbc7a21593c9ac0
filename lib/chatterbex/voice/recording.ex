defmodule Chatterbex.Voice.Recording do
  @moduledoc false
  # Recorded speech as a model needs it: one channel, with its figures.

  require Logger

  alias Chatterbex.{Audio, Error, Model}
  alias Chatterbex.Audio.Change

  @enforce_keys [:samples, :sample_rate, :seconds, :peak, :clipped]
  defstruct @enforce_keys

  @typedoc """
  - `peak`: the largest sample, without its sign
  - `clipped`: the share of samples at full scale, from 0 to 1
  """
  @type t :: %__MODULE__{
          samples: binary,
          sample_rate: pos_integer,
          seconds: float,
          peak: float,
          clipped: float
        }

  @rates 4_000..768_000
  @longest 300
  # -80 dB
  @quietest 1.0e-4
  @full_scale 0.999
  @heavily_clipped 0.01

  @doc """
  The longest recording of a voice, in seconds.
  """
  @spec longest() :: pos_integer
  def longest, do: @longest

  @doc """
  Makes a recording from audio. The channels are averaged.
  """
  @spec new(Audio.t()) :: {:ok, t} | {:error, Error.t()}
  def new(audio) do
    with {:ok, mono} <- Change.mono(audio),
         :ok <- rate(mono.sample_rate),
         do: measured(mono.samples, mono.sample_rate)
  end

  defp measured(samples, rate) do
    with {:ok, stats} <- stats(samples) do
      {:ok,
       %__MODULE__{
         samples: samples,
         sample_rate: rate,
         seconds: byte_size(samples) / 4 / rate,
         peak: stats.peak,
         clipped: stats.clipped
       }}
    end
  end

  defp stats(samples), do: stats(samples, 0.0, 0, 0)

  defp stats(<<x::float-32-little, rest::binary>>, peak, clipped, n) do
    x = abs(x)
    stats(rest, max(x, peak), if(x >= @full_scale, do: clipped + 1, else: clipped), n + 1)
  end

  defp stats("", peak, clipped, n), do: {:ok, %{peak: peak, clipped: clipped / max(n, 1)}}

  defp stats(_nan, _, _, _),
    do: {:error, Error.new(:invalid_audio, "the audio has samples that are not finite numbers")}

  defp rate(rate) when rate in @rates, do: :ok

  defp rate(rate) do
    {:error,
     Error.new(
       :invalid_audio,
       "the audio has #{rate} samples a second; the range is #{@rates.first} to #{@rates.last}",
       %{sample_rate: rate}
     )}
  end

  @doc """
  Whether a model can make a voice from a recording.
  """
  @spec check(t, Model.t()) :: :ok | {:error, Error.t()}
  def check(%__MODULE__{seconds: seconds}, %Model{voice_seconds: needed}) when seconds <= needed do
    {:error,
     Error.new(
       :voice_too_short,
       "the recording of the voice is #{figure(seconds)} s long; more than #{figure(needed)} s are needed, and " <>
         "10 to 15 s are best",
       %{seconds: seconds, needed: needed}
     )}
  end

  def check(%__MODULE__{seconds: seconds}, _model) when seconds > @longest do
    {:error,
     Error.new(
       :voice_unreadable,
       "the recording of the voice is #{figure(seconds)} s long; at most #{@longest} s are allowed. Cut out 10 to 15 s " <>
         "in which one person speaks clearly.",
       %{seconds: seconds, most: @longest}
     )}
  end

  def check(recording, _model) do
    if silent?(recording) do
      {:error,
       Error.new(
         :voice_unreadable,
         "the recording of the voice is silent: its loudest sample is #{recording.peak}. Was the microphone on?",
         %{peak: recording.peak}
       )}
    else
      :ok
    end
  end

  @doc """
  Whether the recording is silent.
  """
  @spec silent?(t) :: boolean
  def silent?(%__MODULE__{peak: peak}), do: peak < @quietest

  @doc """
  Logs a warning if a recording is so distorted that the voice will be too.
  """
  @spec warn(t, String.t()) :: :ok
  def warn(%__MODULE__{clipped: clipped}, what) when clipped > @heavily_clipped do
    Logger.warning(
      "chatterbex: #{figure(clipped * 100)} % of #{what} is clipped, which is heard as distortion: " <>
        "record it again with less gain"
    )
  end

  def warn(_recording, _what), do: :ok

  @doc """
  Splits the recording. Each part ends at one of these frames, and the last one at the recording's end.
  """
  @spec parts(t, [pos_integer, ...]) :: [t]
  def parts(%__MODULE__{samples: samples, sample_rate: rate}, ends) do
    for {from, to} <- Enum.zip([0 | ends], ends) do
      {:ok, part} = samples |> binary_part(4 * from, 4 * (to - from)) |> measured(rate)
      part
    end
  end

  @doc """
  The recording in the form that the engine needs.
  """
  @spec command(t) :: map
  def command(%__MODULE__{} = recording),
    do: %{"samples" => {:bytes, recording.samples}, "sample_rate" => recording.sample_rate}

  defp figure(number), do: :erlang.float_to_binary(number * 1.0, [:compact, decimals: 2])
end
