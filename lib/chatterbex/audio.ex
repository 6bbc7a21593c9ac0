defmodule Chatterbex.Audio do
  @moduledoc """
  Audio: samples, their rate and the number of channels.

  `samples` is a binary of 32-bit little-endian floats from -1.0 to 1.0, channels interleaved. `metadata` says
  how the audio was made: `model`, `voice`, `seed`, and more by model.

      {:ok, audio} = Chatterbex.generate("Hello, world!")
      :ok = Chatterbex.Audio.write(audio, "hello.wav")

  Reading and writing need no Python: a node without it can keep and convert what another node has spoken.
  """

  alias Chatterbex.{Error, Files, Native, Options}

  @enforce_keys [:samples, :sample_rate]
  defstruct [:samples, :sample_rate, channels: 1, metadata: %{}]

  @type t :: %__MODULE__{
          samples: binary,
          sample_rate: pos_integer,
          channels: pos_integer,
          metadata: map
        }

  @doc """
  Writes the audio as a WAV file.

  A regular file appears whole or not at all: it is written beside its place and moved there.

  ## Options

  #{Chatterbex.Options.Schema.docs(:wav)}

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> path = Path.join(System.tmp_dir!(), "chatterbex-doctest.wav")
      iex> Chatterbex.Audio.write(audio, path)
      :ok
      iex> File.rm(path)
      :ok

      iex> audio = %Chatterbex.Audio{samples: "", sample_rate: 24_000}
      iex> {:error, error} = Chatterbex.Audio.write(audio, "/no/such/folder/a.wav")
      iex> error.message
      "cannot write /no/such/folder/a.wav: no such file or directory (enoent). Make its folder first."
  """
  @spec write(t, Path.t(), keyword) :: :ok | {:error, Error.t()}
  def write(%__MODULE__{} = audio, path, options \\ []) do
    with {:ok, wav} <- to_wav(audio, options), do: Files.write(path, wav)
  end

  @doc """
  The same as `write/3`, but raises `Chatterbex.Error`.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: "", sample_rate: 24_000}
      iex> Chatterbex.Audio.write!(audio, "/no/such/folder/a.wav")
      ** (Chatterbex.Error) cannot write /no/such/folder/a.wav: no such file or directory (enoent). Make its folder first.
  """
  @spec write!(t, Path.t(), keyword) :: :ok
  def write!(audio, path, options \\ []) do
    with {:error, error} <- write(audio, path, options), do: raise(error)
  end

  @doc """
  The audio as the bytes of a WAV file.

  ## Options

  #{Chatterbex.Options.Schema.docs(:wav)}

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> {:ok, wav} = Chatterbex.Audio.to_wav(audio)
      iex> byte_size(wav)
      46
  """
  @spec to_wav(t, keyword) :: {:ok, binary} | {:error, Error.t()}
  def to_wav(%__MODULE__{} = audio, options \\ []) do
    with {:ok, options} <- Options.validate(:wav, options), :ok <- check(audio) do
      audio.samples
      |> Native.Audio.wav_encode(audio.sample_rate, audio.channels, options.encoding)
      |> from_native()
    end
  end

  @doc """
  Reads the bytes of a WAV file: integers of 8, 16, 24 or 32 bits, or 32-bit floats.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> {:ok, wav} = Chatterbex.Audio.to_wav(audio, encoding: :f32)
      iex> Chatterbex.Audio.from_wav(wav)
      {:ok, audio}

      iex> {:error, error} = Chatterbex.Audio.from_wav("not a WAV file")
      iex> error.reason
      :invalid_audio
  """
  @spec from_wav(binary) :: {:ok, t} | {:error, Error.t()}
  def from_wav(wav) when is_binary(wav) do
    with {:ok, decoded} <- wav |> Native.Audio.wav_decode() |> from_native() do
      {:ok, struct!(__MODULE__, Map.take(decoded, [:samples, :sample_rate, :channels]))}
    end
  end

  @doc """
  Reads a WAV file.

  ## Examples

      iex> {:error, error} = Chatterbex.Audio.read("/no/such/file.wav")
      iex> error.message
      "cannot read /no/such/file.wav: no such file or directory (enoent)."
  """
  @spec read(Path.t()) :: {:ok, t} | {:error, Error.t()}
  def read(path) do
    with {:ok, wav} <- Files.read(path), do: wav |> from_wav() |> name_file(path)
  end

  @doc """
  How long the audio is, in seconds.

  ## Examples

      iex> Chatterbex.Audio.duration(%Chatterbex.Audio{samples: <<0::48_000*32>>, sample_rate: 24_000})
      2.0
  """
  @spec duration(t) :: float
  def duration(%__MODULE__{} = audio), do: frames(audio) / audio.sample_rate

  @doc """
  The samples as 16-bit little-endian integers, what most players and codecs take.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<1.0::float-32-little>>, sample_rate: 24_000}
      iex> Chatterbex.Audio.to_pcm16(audio)
      {:ok, <<32_767::16-little>>}
  """
  @spec to_pcm16(t) :: {:ok, binary} | {:error, Error.t()}
  def to_pcm16(%__MODULE__{} = audio) do
    with :ok <- check(audio), do: audio.samples |> Native.Audio.pcm16() |> from_native()
  end

  defp frames(audio), do: div(byte_size(audio.samples), 4 * audio.channels)

  defp check(%{samples: samples, sample_rate: rate, channels: channels})
       when is_binary(samples) and is_integer(rate) and rate > 0 and is_integer(channels) and channels > 0 and
              rem(byte_size(samples), 4 * channels) == 0,
       do: :ok

  defp check(audio) do
    {:error,
     Error.new(
       :invalid_audio,
       "this is no audio: samples must be a binary of 32-bit floats in whole frames, sample_rate and channels " <>
         "whole numbers above 0, got #{Options.Schema.show(Map.from_struct(audio))}"
     )}
  end

  defp name_file({:ok, audio}, _path), do: {:ok, audio}

  defp name_file({:error, error}, path) do
    {:error, %{error | message: "#{path}: #{error.message}", details: Map.put(error.details, :path, path)}}
  end

  defp from_native({:ok, value}), do: {:ok, value}
  defp from_native({:error, error}), do: {:error, Error.from_native(error)}

  defimpl Inspect do
    def inspect(%{samples: samples, channels: channels, sample_rate: rate} = audio, _opts)
        when is_binary(samples) and is_integer(channels) and channels > 0 and is_integer(rate) and rate > 0 do
      seconds = :erlang.float_to_binary(Chatterbex.Audio.duration(audio), decimals: 2)
      "#Chatterbex.Audio<#{seconds} s, #{rate} Hz, #{layout(channels)}>"
    end

    def inspect(_audio, _opts), do: "#Chatterbex.Audio<invalid>"

    defp layout(1), do: "mono"
    defp layout(2), do: "stereo"
    defp layout(channels), do: "#{channels} channels"
  end
end
