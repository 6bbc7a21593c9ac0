defmodule Chatterbex.Audio do
  @moduledoc """
  Audio: its samples, sample rate and channels, and functions to read, write and change it.

  `samples` is a binary of 32-bit little-endian floats from -1.0 to 1.0, channels interleaved. `metadata` says
  how the audio was made: `model`, `voice`, `seed` and, depending on the model, more.

      {:ok, audio} = Chatterbex.generate("Hello, world!")
      :ok = Chatterbex.Audio.write(audio, "hello.wav")

  Only `detect_watermark/1` and `watermarked?/1` need Python, so a node without Python can store and convert audio from
  another node. The work runs on dirty schedulers, in time proportional to the length of the audio. Errors are values.
  The reason is `:invalid_audio` if the samples do not match the struct or, for functions that compute with them, if a
  sample is not a number, infinite or above 1.0e12. Otherwise it is `:out_of_memory`.

  ## Files from strangers

  A file of a few kilobytes can claim to need gigabytes of memory. `read/2`, `from_format/2` and `from_wav/2` protect you:

    * Audio beyond `:max_seconds` or `:max_samples` is refused. If the file states its length, that happens before
      anything is decoded.
    * A file may hold 16,777,216 samples (six minutes in one channel at 48 kHz). It may hold more only if it has at least
      one byte for every 1024 samples. Recordings, even of silence, have more bytes than that.
    * Decoded samples go into one growing binary. A file cannot use more memory than the limits allow.
    * Damaged files are errors with the reason `:invalid_audio`, whatever they do to a decoder.

  The work ends soon after the process that asked for it: decoding, encoding, `resample/2`, `loudness/1` and
  `normalize/2` check between two blocks of samples. To limit the time, run them in a task and stop it with
  `Task.shutdown/2`.
  """

  alias Chatterbex.{Error, Native, Runtime}
  alias Chatterbex.Audio.{Change, Format, Measure, Samples}
  alias Chatterbex.Voice.Recording

  # Finding the watermark needs this.
  @python %{home: :any, profiles: ["hibari", "torch"], timeout: 60_000}

  @enforce_keys [:samples, :sample_rate]
  defstruct [:samples, :sample_rate, channels: 1, metadata: %{}]

  @type t :: %__MODULE__{
          samples: binary,
          sample_rate: pos_integer,
          channels: pos_integer,
          metadata: map
        }

  @doc """
  Writes the audio to a WAV, FLAC, Ogg Opus or MP3 file. The file extension or the option `:format` decides which.

  A regular file appears whole or not at all: it is written under a temporary name in the same folder, then renamed.

  ## Options

  #{Chatterbex.Options.Schema.docs(:write)}

  The options of the format work too: see `to_format/3`.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> path = Path.join(System.tmp_dir!(), "chatterbex-doctest.flac")
      iex> Chatterbex.Audio.write(audio, path, encoding: :s24)
      :ok
      iex> File.rm(path)
      :ok

      iex> audio = %Chatterbex.Audio{samples: "", sample_rate: 24_000}
      iex> {:error, error} = Chatterbex.Audio.write(audio, "/no/such/folder/a.wav")
      iex> error.message
      "cannot write /no/such/folder/a.wav: no such file or directory (enoent). Make its folder first."
  """
  @spec write(t, Path.t(), keyword) :: :ok | {:error, Error.t()}
  def write(%__MODULE__{} = audio, path, options \\ []), do: Format.write(audio, path, options)

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
  Encodes the audio as the bytes of a file that browsers play: `:wav`, `:flac`, `:opus` (in Ogg) or `:mp3`.

    * WAV and FLAC are lossless up to the precision of their integers; samples outside -1.0 to 1.0 are clipped.
    * FLAC files are about half the size of WAV. FLAC supports at most 655350 Hz and 8 channels, and needs at least one
      sample.
    * Opus files are about a tenth of the size of WAV and sound alike. Opus supports one or two channels. Audio that is
      not at 8000, 12000, 16000, 24000 or 48000 Hz is resampled to 48000 Hz.
    * MP3 plays everywhere. It supports one or two channels and nine rates from 8000 to 48000 Hz; audio at any other rate
      is resampled to 48000 Hz.

  Metadata is not written.

  ## Options

  For `:wav`:

  #{Chatterbex.Options.Schema.docs(:wav)}

  For `:flac`:

  #{Chatterbex.Options.Schema.docs(:flac)}

  For `:opus`:

  #{Chatterbex.Options.Schema.docs(:opus)}

  For `:mp3`:

  #{Chatterbex.Options.Schema.docs(:mp3)}

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> {:ok, flac} = Chatterbex.Audio.to_format(audio, :flac)
      iex> Chatterbex.Audio.from_format(flac)
      {:ok, audio}

      iex> {:ok, audio} = Chatterbex.Audio.silence(1_000)
      iex> {:ok, opus} = Chatterbex.Audio.to_format(audio, :opus, bitrate: 24_000)
      iex> {:ok, audio} = Chatterbex.Audio.from_format(opus)
      iex> Chatterbex.Audio.duration(audio)
      1.0
  """
  @spec to_format(t, :wav | :flac | :opus | :mp3, keyword) :: {:ok, binary} | {:error, Error.t()}
  def to_format(%__MODULE__{} = audio, format, options \\ []), do: Format.encode(audio, format, options)

  @doc """
  Encodes the audio as the bytes of a WAV file: `to_format/3` with `:wav`.

  ## Options

  #{Chatterbex.Options.Schema.docs(:wav)}

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> {:ok, wav} = Chatterbex.Audio.to_wav(audio)
      iex> byte_size(wav)
      46
  """
  @spec to_wav(t, keyword) :: {:ok, binary} | {:error, Error.t()}
  def to_wav(%__MODULE__{} = audio, options \\ []), do: to_format(audio, :wav, options)

  @doc """
  The same as `to_wav/2`, but returns the bytes or raises `Chatterbex.Error`.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> audio |> Chatterbex.Audio.to_wav!(encoding: :s24) |> byte_size()
      71
  """
  @spec to_wav!(t, keyword) :: binary
  def to_wav!(audio, options \\ []), do: Error.unwrap!(to_wav(audio, options))

  @doc """
  Reads the bytes of a WAV file: integers of 8, 16, 24 or 32 bits, or 32-bit floats.

  A file that was written to a pipe, for example by ffmpeg, does not state its length. It is read to its end.

  ## Options

  #{Chatterbex.Options.Schema.docs(:read)}

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> {:ok, wav} = Chatterbex.Audio.to_wav(audio, encoding: :f32)
      iex> Chatterbex.Audio.from_wav(wav)
      {:ok, audio}

      iex> {:error, error} = Chatterbex.Audio.from_wav("not a WAV file")
      iex> error.reason
      :invalid_audio
  """
  @spec from_wav(binary, keyword) :: {:ok, t} | {:error, Error.t()}
  def from_wav(wav, options \\ []) when is_binary(wav), do: wav |> Format.decode_wav(options) |> new()

  @doc """
  Reads a WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus file. The format is detected from the content, not the name.

  See `from_format/2`.

  ## Options

  #{Chatterbex.Options.Schema.docs(:read)}

  ## Examples

      {:ok, audio} = Chatterbex.Audio.read("ann.mp3", max_seconds: 60)

      iex> {:error, error} = Chatterbex.Audio.read("/no/such/file.wav")
      iex> error.message
      "cannot read /no/such/file.wav: no such file or directory (enoent)."
  """
  @spec read(Path.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def read(path, options \\ []), do: path |> Format.read(options) |> new()

  @doc """
  The same as `read/2`, but returns the audio or raises `Chatterbex.Error`.

  ## Examples

      "ann.mp3" |> Chatterbex.Audio.read!() |> Chatterbex.Audio.duration()

      iex> Chatterbex.Audio.read!("/no/such/file.wav")
      ** (Chatterbex.Error) cannot read /no/such/file.wav: no such file or directory (enoent).
  """
  @spec read!(Path.t(), keyword) :: t
  def read!(path, options \\ []), do: Error.unwrap!(read(path, options))

  @doc """
  Reads the bytes of a WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus file.

  The audio has the file's own sample rate and channels; to change them, see `resample/2` and `mono/1`. Opus audio has no
  rate of its own: you get the original rate if the file names one that Opus supports, otherwise 48 kHz. Padding that the
  encoder added before and after the sound is removed if the file says how much there is.

  A truncated or damaged file is refused with `:invalid_audio` if the format makes that visible. MP3 has no checksums, and
  many MP3 files do not state their length.

  ## Options

  #{Chatterbex.Options.Schema.docs(:read)}

  ## Examples

      iex> {:ok, wav} = Chatterbex.Audio.to_wav(%Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 8_000})
      iex> {:ok, audio} = Chatterbex.Audio.from_format(wav)
      iex> audio.sample_rate
      8000

      iex> {:error, error} = Chatterbex.Audio.from_format("hello")
      iex> error.message
      "these 5 bytes are not an audio file: neither WAV, FLAC, MP3, Ogg Vorbis nor Ogg Opus"
  """
  @spec from_format(binary, keyword) :: {:ok, t} | {:error, Error.t()}
  def from_format(file, options \\ []) when is_binary(file), do: file |> Format.decode(options) |> new()

  @doc """
  Resamples the audio to another sample rate, in Hz, from 1000 to 768000.

  The result has `ceil(frames * rate / audio.sample_rate)` frames, at most 536,870,912 samples in all channels together,
  and stays in time with the original. Tones below 95 % of half the lower of the two rates are kept, to within -100 dB.
  Tones above half the lower rate are removed.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0::24_000*32>>, sample_rate: 24_000}
      iex> {:ok, audio} = Chatterbex.Audio.resample(audio, 16_000)
      iex> {audio.sample_rate, Chatterbex.Audio.duration(audio)}
      {16000, 1.0}

      iex> {:error, error} = Chatterbex.Audio.resample(%Chatterbex.Audio{samples: "", sample_rate: 24_000}, 16)
      iex> error.message
      "a sample rate must be a whole number from 1000 to 768000, got 16"
  """
  @spec resample(t, pos_integer) :: {:ok, t} | {:error, Error.t()}
  def resample(%__MODULE__{} = audio, rate), do: Change.resample(audio, rate)

  @doc """
  Mixes the channels into one: the mean of each frame.

  ## Examples

      iex> samples = for value <- [0.5, -0.5, 1.0, 0.5], into: "", do: <<value::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.mono(%Chatterbex.Audio{samples: samples, sample_rate: 8_000, channels: 2})
      iex> audio.samples
      <<0.0::float-32-little, 0.75::float-32-little>>
  """
  @spec mono(t) :: {:ok, t} | {:error, Error.t()}
  def mono(%__MODULE__{} = audio), do: Change.mono(audio)

  @doc """
  Joins a list of audio, one after another. All parts must have the same sample rate and channels.

  The result keeps the metadata that all parts with metadata agree on, such as `:model` and `:voice`. Counts, times and
  positions, such as `:tokens` and `:generation_ms`, are left out because they belong to the parts.

  ## Examples

      iex> {:ok, pause} = Chatterbex.Audio.silence(500)
      iex> {:ok, audio} = Chatterbex.Audio.concat([pause, pause])
      iex> Chatterbex.Audio.duration(audio)
      1.0

      iex> {:ok, fast} = Chatterbex.Audio.silence(500, sample_rate: 48_000)
      iex> {:ok, slow} = Chatterbex.Audio.silence(500)
      iex> {:error, error} = Chatterbex.Audio.concat([slow, fast])
      iex> error.message
      "all parts must have the same rate and channels: the first has 24000 Hz and 1 channel, number 2 has " <>
        "48000 Hz and 1 channel. Convert them first with Chatterbex.Audio.resample/2 and Chatterbex.Audio.mono/1."
  """
  @spec concat([t, ...]) :: {:ok, t} | {:error, Error.t()}
  def concat(audios), do: Change.concat(audios, &is_struct(&1, __MODULE__))

  @doc """
  Makes silence of the given number of milliseconds, from 0 to 3600000 (an hour).

  The default rate is the sample rate of the models.

  ## Options

  #{Chatterbex.Options.Schema.docs(:silence)}

  ## Examples

      iex> Chatterbex.Audio.silence(1)
      {:ok, %Chatterbex.Audio{samples: <<0::24*32>>, sample_rate: 24_000}}

      iex> {:ok, audio} = Chatterbex.Audio.silence(250, sample_rate: 8_000, channels: 2)
      iex> inspect(audio)
      "#Chatterbex.Audio<0.25 s, 8000 Hz, stereo>"
  """
  @spec silence(non_neg_integer, keyword) :: {:ok, t} | {:error, Error.t()}
  def silence(milliseconds, options \\ []), do: milliseconds |> Change.silence(options) |> new()

  @doc """
  Removes the silence at the beginning and the end.

  Audio is silent while all channels stay at or below the threshold. If all of the audio is silent, the result is empty.

  ## Options

  #{Chatterbex.Options.Schema.docs(:trim)}

  ## Examples

      iex> samples = for value <- [0.0, 0.001, 0.5, 0.0, 0.3, 0.0], into: "", do: <<value::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.trim(%Chatterbex.Audio{samples: samples, sample_rate: 24_000}, margin: 0)
      iex> byte_size(audio.samples)
      12
  """
  @spec trim(t, keyword) :: {:ok, t} | {:error, Error.t()}
  def trim(%__MODULE__{} = audio, options \\ []), do: Change.trim(audio, options)

  @doc """
  Fades the audio `:in` from silence, `:out` to silence, or `:both`, over the given milliseconds, from 0 to 3600000.

  A fade is never longer than the audio. Its curve is half a cosine wave.

  ## Examples

      iex> samples = for _frame <- 1..100, into: "", do: <<1.0::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.fade(%Chatterbex.Audio{samples: samples, sample_rate: 1_000}, :in, 10)
      iex> for <<value::float-32-little <- binary_part(audio.samples, 0, 44)>>, do: Float.round(value, 2)
      [0.0, 0.02, 0.1, 0.21, 0.35, 0.5, 0.65, 0.79, 0.9, 0.98, 1.0]
  """
  @spec fade(t, :in | :out | :both, non_neg_integer) :: {:ok, t} | {:error, Error.t()}
  def fade(%__MODULE__{} = audio, side, milliseconds), do: Change.fade(audio, side, milliseconds)

  @doc """
  Measures the integrated loudness of the audio by EBU R128 (ITU-R BS.1770), in LUFS.

  The result is `:silent` for audio below -70 LUFS, where the standard measures nothing. Audio shorter than the standard's
  block of 0.4 s is measured as one block of its own length. A mono file counts as one channel: it is 3 LU quieter than
  the same sound in both channels of a stereo file.

  It measures rates from 4000 to 768000 Hz and at most 6 channels. The order of 6 channels is left, right, centre, low
  frequencies (which do not count), left surround and right surround.

  ## Examples

      iex> tone = for n <- 0..23_999, into: "", do: <<0.1 * :math.sin(n * 2 * :math.pi() * 997 / 24_000)::float-32-little>>
      iex> {:ok, loudness} = Chatterbex.Audio.loudness(%Chatterbex.Audio{samples: tone, sample_rate: 24_000})
      iex> Float.round(loudness, 1)
      -23.0

      iex> {:ok, audio} = Chatterbex.Audio.silence(1_000)
      iex> Chatterbex.Audio.loudness(audio)
      {:ok, :silent}
  """
  @spec loudness(t) :: {:ok, float | :silent} | {:error, Error.t()}
  def loudness(%__MODULE__{} = audio), do: Measure.loudness(audio)

  @doc """
  Brings the audio to a loudness, measured by EBU R128 (ITU-R BS.1770): see `loudness/1`.

  It scales all samples by the same factor. If the peaks would then exceed `:peak`, the result is less loud than you asked
  for; `loudness/1` returns how loud it is. Silence stays silence.

  ## Options

  #{Chatterbex.Options.Schema.docs(:normalize)}

  ## Examples

      iex> tone = for n <- 0..23_999, into: "", do: <<0.01 * :math.sin(n * 2 * :math.pi() * 997 / 24_000)::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.normalize(%Chatterbex.Audio{samples: tone, sample_rate: 24_000}, loudness: -18)
      iex> {:ok, loudness} = Chatterbex.Audio.loudness(audio)
      iex> Float.round(loudness, 1)
      -18.0
  """
  @spec normalize(t, keyword) :: {:ok, t} | {:error, Error.t()}
  def normalize(%__MODULE__{} = audio, options \\ []), do: Change.normalize(audio, options)

  @doc """
  Draws the waveform and the spectrogram of the audio, for notebooks and to find out why something sounds wrong.

  The waveform spans -1.0 to 1.0, or more if the audio does. The spectrogram spans 0 Hz to half the sample rate, and 80 dB
  down from its highest level. Up to 64 channels are drawn as one, with their largest samples and the mean of their
  spectra. Livebook shows audio with its waveform by default, and the picture with `Kino.Image.new(svg, :svg)`.

  ## Options

  #{Chatterbex.Options.Schema.docs(:plot)}

  ## Examples

      iex> {:ok, audio} = Chatterbex.Audio.silence(500)
      iex> {:ok, svg} = Chatterbex.Audio.plot(audio)
      iex> String.starts_with?(svg, "<svg ")
      true

      iex> {:ok, audio} = Chatterbex.Audio.silence(500)
      iex> {:ok, png} = Chatterbex.Audio.plot(audio, format: :png, show: :waveform, width: 320, height: 160)
      iex> binary_part(png, 1, 3)
      "PNG"
  """
  @spec plot(t, keyword) :: {:ok, binary} | {:error, Error.t()}
  def plot(%__MODULE__{} = audio, options \\ []), do: Measure.plot(audio, options)

  @doc """
  Returns the length of the audio in seconds.

  ## Examples

      iex> Chatterbex.Audio.duration(%Chatterbex.Audio{samples: <<0::48_000*32>>, sample_rate: 24_000})
      2.0
  """
  @spec duration(t) :: float
  def duration(%__MODULE__{} = audio), do: frames(audio) / audio.sample_rate

  @doc """
  Converts the samples to 16-bit little-endian integers, which most players and codecs accept.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<1.0::float-32-little>>, sample_rate: 24_000}
      iex> Chatterbex.Audio.to_pcm16(audio)
      {:ok, <<32_767::16-little>>}
  """
  @spec to_pcm16(t) :: {:ok, binary} | {:error, Error.t()}
  def to_pcm16(%__MODULE__{} = audio) do
    with :ok <- Samples.check(audio), do: audio.samples |> Native.Audio.pcm16() |> Samples.from_native()
  end

  @doc """
  The same as `to_pcm16/1`, but returns the binary or raises `Chatterbex.Error`.

  ## Examples

      iex> Chatterbex.Audio.to_pcm16!(%Chatterbex.Audio{samples: <<-1.0::float-32-little>>, sample_rate: 24_000})
      <<-32_768::16-signed-little>>
  """
  @spec to_pcm16!(t) :: binary
  def to_pcm16!(audio), do: Error.unwrap!(to_pcm16(audio))

  @doc """
  Looks for PerTh's watermark, which all speech of the Chatterbox models carries. Returns `true` if it finds the watermark.

  Channels are averaged. The result is `true` if PerTh is more than half sure; mostly it is either quite sure or not at
  all. The watermark is made to survive MP3, resampling and cuts. It needs at least a second of audio. It may be missed
  in audio that is shorter, silent or mixed with louder sound. `false` does not prove that a person spoke.

  You need PyTorch (`mix chatterbex.setup --cpu`, or another device), but no server. The first call in a VM starts Python,
  which takes seconds. Later calls wait for the model thread, at most a minute.

  ## Examples

      {:ok, audio} = Chatterbex.generate("Hello!", server: MyApp.Speech)
      {:ok, true} = Chatterbex.Audio.detect_watermark(audio)

      iex> audio = %Chatterbex.Audio{samples: <<0>>, sample_rate: 24_000}
      iex> {:error, error} = Chatterbex.Audio.detect_watermark(audio)
      iex> error.reason
      :invalid_audio
  """
  @spec detect_watermark(t) :: {:ok, boolean} | {:error, Error.t()}
  def detect_watermark(%__MODULE__{} = audio) do
    with {:ok, recording} <- Recording.new(audio),
         {:ok, _python} <- Runtime.start_python(@python),
         command = Map.put(Recording.command(recording), "op", "watermarked"),
         {:ok, answer} <- Runtime.ask(command, @python.timeout),
         do: {:ok, answer["watermarked"]}
  end

  @doc """
  Whether the audio has PerTh's watermark: see `detect_watermark/1`. It raises `Chatterbex.Error` if it cannot find out, for
  example without PyTorch.

  ## Examples

      if Chatterbex.Audio.watermarked?(audio), do: "A Chatterbox model said this."

      iex> Chatterbex.Audio.watermarked?(%Chatterbex.Audio{samples: <<0>>, sample_rate: 24_000})
      ** (Chatterbex.Error) this is not audio: samples must be a binary of 32-bit floats in whole frames, sample_rate and channels whole numbers above 0, got [sample_rate: 24000, channels: 1, samples: <<0>>]
  """
  @spec watermarked?(t) :: boolean
  def watermarked?(audio), do: Error.unwrap!(detect_watermark(audio))

  defp new({:ok, fields}), do: {:ok, struct!(__MODULE__, fields)}
  defp new({:error, error}), do: {:error, error}

  defp frames(audio), do: div(byte_size(audio.samples), 4 * audio.channels)

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
