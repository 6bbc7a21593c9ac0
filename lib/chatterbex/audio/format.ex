defmodule Chatterbex.Audio.Format do
  @moduledoc false
  # Audio files: written by format, read by content.

  alias Chatterbex.{Audio, Error, Files, Native, Options}
  alias Chatterbex.Audio.{Change, Encoder, Samples}

  @typep file :: {:ok, binary} | {:error, Error.t()}
  # The fields of the audio in a file.
  @typep fields :: {:ok, map} | {:error, Error.t()}

  @endings %{
    ".wav" => :wav,
    ".wave" => :wav,
    ".flac" => :flac,
    ".opus" => :opus,
    ".ogg" => :opus,
    ".mp3" => :mp3
  }

  # The sample rates of MPEG Layer III.
  @mp3_rates [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]

  # A file with such a name and other contents would be useless.
  @unwritten ~w(.m4a .m4b .mp4 .aac .oga .webm .weba .wma .aif .aiff .caf .amr .ac3 .au)

  @spec write(Audio.t(), term, keyword) :: :ok | {:error, Error.t()}
  def write(audio, path, options) do
    {named, options} =
      if Keyword.keyword?(options), do: Keyword.split(options, [:format]), else: {[], options}

    with {:ok, %{format: format}} <- Options.validate(:write, named),
         {:ok, path} <- Files.path(path),
         {:ok, format} <- format(format, path),
         {:ok, file} <- encode(audio, format, options),
         do: Files.write(path, file)
  end

  defp format(nil, path) do
    ending = path |> Path.extname() |> String.downcase()

    if ending in @unwritten do
      {:error,
       Error.new(
         :invalid_option,
         "cannot write #{path}: #{ending} is not a supported extension. Use .wav, .flac, .opus or .mp3, or choose " <>
           "the format with the option :format.",
         %{path: path}
       )}
    else
      {:ok, Map.get(@endings, ending, :wav)}
    end
  end

  defp format(format, _path), do: {:ok, format}

  @doc """
  The format for a path's extension; WAV for a path without one.
  """
  @spec of_path(Path.t()) :: {:ok, Encoder.format()} | {:error, Error.t()}
  def of_path(path), do: format(nil, path)

  @spec encode(Audio.t(), term, keyword) :: file
  def encode(audio, format, options) do
    with {:ok, format} <- Options.value("the format of a file", {:in, [:wav, :flac, :opus, :mp3]}, format),
         {:ok, options} <- Options.validate(format, options),
         :ok <- Samples.check(audio),
         do: encoded(format, audio, options)
  end

  defp encoded(:mp3, audio, options) do
    with {:ok, audio} <- at_a_rate_of_mp3(audio), do: Encoder.whole(:mp3, audio, options)
  end

  defp encoded(format, audio, options), do: format |> native(audio, options) |> Samples.from_native()

  defp at_a_rate_of_mp3(%{sample_rate: rate} = audio) when rate in @mp3_rates, do: {:ok, audio}
  defp at_a_rate_of_mp3(audio), do: Change.resample(audio, 48_000)

  defp native(:wav, audio, options),
    do: Native.Audio.wav_encode(audio.samples, audio.sample_rate, audio.channels, options.encoding)

  defp native(:flac, audio, options),
    do: Native.Audio.flac_encode(audio.samples, audio.sample_rate, audio.channels, bits(options.encoding))

  defp native(:opus, audio, options),
    do: Native.Audio.opus_encode(audio.samples, audio.sample_rate, audio.channels, options.bitrate)

  defp bits(:s16), do: 16
  defp bits(:s24), do: 24

  @spec read(term, keyword) :: fields
  def read(path, options) do
    with {:ok, limits} <- Options.validate(:read, options),
         {:ok, file} <- Files.read(path, limits.max_bytes) do
      file |> decode(options) |> named(path)
    end
  end

  defp named({:ok, fields}, _path), do: {:ok, fields}

  defp named({:error, error}, path) do
    {:error, %{error | message: "#{path}: #{error.message}", details: Map.put(error.details, :path, path)}}
  end

  @spec decode(binary, keyword) :: fields
  def decode(file, options) do
    with {:ok, limits} <- Options.validate(:read, options),
         :ok <- within(file, limits.max_bytes),
         do: file |> Native.Audio.decode(limits.max_seconds, limits.max_samples) |> Samples.from_native()
  end

  defp within(file, max) when byte_size(file) <= max, do: :ok
  defp within(_file, max), do: {:error, Files.too_large("the audio", max)}

  @spec decode_wav(binary, keyword) :: fields
  def decode_wav(file, options) do
    with {:ok, limits} <- Options.validate(:read, options),
         :ok <- within(file, limits.max_bytes),
         do: file |> Native.Audio.wav_decode(limits.max_seconds, limits.max_samples) |> Samples.from_native()
  end
end
