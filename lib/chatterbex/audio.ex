defmodule Chatterbex.Audio do
  @moduledoc """
  Audio: samples, their rate and the number of channels; files of it, and what can be done with it.

  `samples` is a binary of 32-bit little-endian floats from -1.0 to 1.0, channels interleaved. `metadata` says
  how the audio was made: `model`, `voice`, `seed`, and more by model.

      {:ok, audio} = Chatterbex.generate("Hello, world!")
      :ok = Chatterbex.Audio.write(audio, "hello.wav")

  None of this needs Python: a node without it can keep and convert what another node has spoken. The work is
  done on dirty schedulers, in time that grows with the length of the audio, and all of its errors are values:
  `:invalid_audio` where the samples are not what the struct says or, where something is computed from them, are no
  numbers, infinite or above 1.0e12; `:out_of_memory`.

  ## Files from strangers

  A file of a few kilobytes can ask for gigabytes of memory. `read/2`, `from_format/2` and `from_wav/2` give it none:

    * Audio beyond `:max_seconds` or `:max_samples` is refused. Where a file says how long it is, that happens before
      anything is decoded.
    * A file may hold 16,777,216 samples (six minutes in one channel at 48 kHz), and more only where it has at least one byte
      for each 1024 samples. Recordings, even of silence, have more bytes than that.
    * Decoded samples go into one binary that grows. A file can waste no more memory than the limits allow.
    * Damaged files are errors with the reason `:invalid_audio`, whatever they do to a decoder.

  The work of a process ends soon after the process does: decoding, encoding, `resample/2`, `loudness/1` and
  `normalize/2` notice between two blocks of samples. Run them in a task, and stop that with `Task.shutdown/2` when they take
  longer than you want to wait.
  """

  alias Chatterbex.{Error, Native, Runtime}
  alias Chatterbex.Audio.{Change, Format, Measure, Samples}
  alias Chatterbex.Voice.Recording

  # What finding the watermark needs.
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
  Writes the audio to a file: WAV, FLAC, Ogg Opus or MP3, by the ending of its name or the option `:format`.

  A regular file appears whole or not at all: it is written beside its place and moved there.

  ## Options

  #{Chatterbex.Options.Schema.docs(:write)}

  Those of the format, too: see `to_format/3`.

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
  The audio as the bytes of a file that browsers play: `:wav`, `:flac`, `:opus` (in Ogg) or `:mp3`.

  WAV and FLAC lose nothing of what their integers hold; samples beyond -1.0 to 1.0 are cut. FLAC takes about half the room
  of WAV, at most 655350 Hz and 8 channels, and at least one sample. Opus takes about a tenth and sounds alike; it takes one or two
  channels, and what is not at 8000, 12000, 16000, 24000 or 48000 Hz is resampled to 48000 Hz. MP3 plays
  everywhere, takes one or two channels and one of nine rates from 8000 to 48000 Hz; what has another is resampled to 48000 Hz.
  Metadata is not written.

  ## Options

  Of `:wav`:

  #{Chatterbex.Options.Schema.docs(:wav)}

  Of `:flac`:

  #{Chatterbex.Options.Schema.docs(:flac)}

  Of `:opus`:

  #{Chatterbex.Options.Schema.docs(:opus)}

  Of `:mp3`:

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
  The audio as the bytes of a WAV file: `to_format/3` with `:wav`.

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

  A file written into a pipe, for example by ffmpeg, does not say how long it is. It is read to its end.

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
  def from_wav(wav, options \\ []) when is_binary(wav), do: Format.decode_wav(wav, options)

  @doc """
  Reads a file: WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus. Its content says which, not its name.

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
  def read(path, options \\ []), do: Format.read(path, options)

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

  The audio has the file's own sample rate and channels: see `resample/2` and `mono/1`. Opus keeps no rate of its own:
  it comes at the rate that it was made from where the file says one that Opus knows, else at 48 kHz. What encoders
  add before and after the sound is taken away where the file says how much.

  A file that ends too early or is damaged is refused, with `:invalid_audio`, where the format lets that be seen: MP3
  has no checksums, and many MP3 files do not say how long they are.

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
  def from_format(file, options \\ []) when is_binary(file), do: Format.decode(file, options)

  @doc """
  The audio at another sample rate, in Hz, from 1000 to 768000.

  It has `ceil(frames * rate / audio.sample_rate)` frames, at most 536,870,912 samples in all channels together, and
  stays in time with the old one. Tones below 95 % of half
  the lower of both rates stay what they are, to within -100 dB; those above half of it are taken away.

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
  The audio with its channels mixed into one: the mean of each frame.

  ## Examples

      iex> samples = for value <- [0.5, -0.5, 1.0, 0.5], into: "", do: <<value::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.mono(%Chatterbex.Audio{samples: samples, sample_rate: 8_000, channels: 2})
      iex> audio.samples
      <<0.0::float-32-little, 0.75::float-32-little>>
  """
  @spec mono(t) :: {:ok, t} | {:error, Error.t()}
  def mono(%__MODULE__{} = audio), do: Change.mono(audio)

  @doc """
  The audio of a list as one, one after another. Rate and channels must be the same.

  Its metadata is what those parts that have any agree on, such as `:model` and `:voice`. Counts, times and places, such as
  `:tokens` and `:generation_ms`, are left out: they are the parts' own.

  ## Examples

      iex> {:ok, pause} = Chatterbex.Audio.silence(500)
      iex> {:ok, audio} = Chatterbex.Audio.concat([pause, pause])
      iex> Chatterbex.Audio.duration(audio)
      1.0

      iex> {:ok, fast} = Chatterbex.Audio.silence(500, sample_rate: 48_000)
      iex> {:ok, slow} = Chatterbex.Audio.silence(500)
      iex> {:error, error} = Chatterbex.Audio.concat([slow, fast])
      iex> error.message
      "audio can be joined where rate and channels are the same: the first has 24000 Hz and 1 channel, number 2 " <>
        "48000 Hz and 1 channel. Bring them to one form with Chatterbex.Audio.resample/2 and Chatterbex.Audio.mono/1."
  """
  @spec concat([t, ...]) :: {:ok, t} | {:error, Error.t()}
  def concat(audios), do: Change.concat(audios)

  @doc """
  So many milliseconds of silence, from 0 to 3600000 (an hour).

  The rate is what the models speak at, unless another is asked for.

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
  def silence(milliseconds, options \\ []), do: Change.silence(milliseconds, options)

  @doc """
  The audio without the silence at its beginning and its end.

  Silence is what stays at or below a threshold, in all channels. Of audio that is all silence nothing is left.

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
  The audio faded `:in` from silence, `:out` to silence, or `:both`, over so many milliseconds, from 0 to 3600000.

  A fade that is longer than the audio is as long as the audio. Its curve is half a wave of a cosine.

  ## Examples

      iex> samples = for _frame <- 1..100, into: "", do: <<1.0::float-32-little>>
      iex> {:ok, audio} = Chatterbex.Audio.fade(%Chatterbex.Audio{samples: samples, sample_rate: 1_000}, :in, 10)
      iex> for <<value::float-32-little <- binary_part(audio.samples, 0, 44)>>, do: Float.round(value, 2)
      [0.0, 0.02, 0.1, 0.21, 0.35, 0.5, 0.65, 0.79, 0.9, 0.98, 1.0]
  """
  @spec fade(t, :in | :out | :both, non_neg_integer) :: {:ok, t} | {:error, Error.t()}
  def fade(%__MODULE__{} = audio, side, milliseconds), do: Change.fade(audio, side, milliseconds)

  @doc """
  How loud the audio is as a whole: its integrated loudness by EBU R128 (ITU-R BS.1770), in LUFS.

  `:silent` is all audio below -70 LUFS, where the standard measures nothing. Audio shorter than the standard's block of
  0.4 s is measured as one block of its own length. A mono file counts as one channel: it is 3 LU quieter than the same
  sound in both channels of a stereo file.

  Rates from 4000 to 768000 Hz and at most 6 channels can be measured, 6 in the order left, right, centre, low frequencies
  (which do not count), left and right surround.

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
  The audio as loud as it should be, by EBU R128 (ITU-R BS.1770): see `loudness/1`.

  All of it is made louder or less loud by the same factor. Where its peaks would then be above `:peak`, it stays less loud
  than was asked for: `loudness/1` tells how loud it is. Silence stays silence.

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
  A picture of the audio over time, for notebooks and for looking into what sounds wrong: its waveform and its spectrogram.

  The waveform reaches from -1.0 to 1.0, or as far as the audio does; the spectrogram from 0 Hz to half the sample rate, and from the
  highest level there is down to 80 dB below. At most 64 channels are drawn as one: what any of them reaches, and the mean of their
  spectra. Livebook shows audio with its waveform by itself, and the picture with `Kino.Image.new(svg, :svg)`.

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
  Looks for PerTh's watermark, which all speech of the Chatterbox models has: `true` where it is found.

  Channels are averaged. The watermark is found where PerTh is more than half sure of it, and it is mostly either quite sure
  or not at all. It is made to outlast MP3, another sample rate and cuts; a second of audio or more is needed, and what is
  shorter, silent or mixed with louder sound may be missed. `false` is no proof that a person spoke.

  It needs no server, but PyTorch: `mix chatterbex.setup --cpu`, or another device. The first call of a VM starts Python,
  which takes seconds; later calls wait for what the model thread is doing, at most a minute.

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
  Whether the audio has PerTh's watermark in it: see `detect_watermark/1`. It raises `Chatterbex.Error` where that cannot be
  told, as without PyTorch.

  ## Examples

      if Chatterbex.Audio.watermarked?(audio), do: "A Chatterbox model said this."

      iex> Chatterbex.Audio.watermarked?(%Chatterbex.Audio{samples: <<0>>, sample_rate: 24_000})
      ** (Chatterbex.Error) this is no audio: samples must be a binary of 32-bit floats in whole frames, sample_rate and channels whole numbers above 0, got [sample_rate: 24000, channels: 1, samples: <<0>>]
  """
  @spec watermarked?(t) :: boolean
  def watermarked?(audio), do: Error.unwrap!(detect_watermark(audio))

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
