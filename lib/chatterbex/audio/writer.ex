defmodule Chatterbex.Audio.Writer do
  @moduledoc """
  Writes audio into a file as it comes: speech of any length, in constant memory.

  The ending of its name says what it is: WAV, FLAC, Ogg Opus or MP3.

      File.read!("book.txt")
      |> Chatterbex.stream(server: MyApp.Speech)
      |> Enum.into(Chatterbex.Audio.Writer.new("book.mp3"))

  or step by step:

      {:ok, writer} = Chatterbex.Audio.Writer.open("book.wav")
      {:ok, writer} = Chatterbex.Audio.Writer.write(writer, audio)
      :ok = Chatterbex.Audio.Writer.close(writer)

  The file appears under its name when it is closed, and whole; until then it is written beside its place, with the
  ending `.part`. The first audio decides on the sample rate and the channels; Opus and MP3 take those that they know, and
  two channels at most. A WAV file holds at most 4 GiB: 24 hours of
  16-bit speech at 24 kHz. Only the process that opened a writer can use it; when that process ends before the writer is
  closed, the `.part` stays.
  """

  alias Chatterbex.{Audio, Error, Files, Options}
  alias Chatterbex.Audio.{Encoder, Format, Samples}
  alias Chatterbex.Files.Replacement

  # The two sizes in the header of a WAV file have 32 bits. It is shorter than what is left for it here.
  @most 0xFFFFFFFF - 128
  @widths %{s16: 2, s24: 3, f32: 4}

  @enforce_keys [:path, :options]
  @doc false
  defstruct [:path, :options, :replacement, :encoding, :form, :encoder, size: 0]

  @typedoc "A writer. Its fields are its own."
  @opaque t :: %__MODULE__{}

  @doc """
  A writer that opens its file when audio is collected into it with `Enum.into/2`.

  That raises `Chatterbex.Error` where `open/2`, `write/2` or `close/1` would give one. No file is left then, nor when the
  collected stream raises or is halted.

  ## Options

  Those of the format: see `Chatterbex.Audio.to_format/3`.

  ## Examples

      iex> audio = %Chatterbex.Audio{samples: <<0.5::float-32-little>>, sample_rate: 24_000}
      iex> path = Path.join(System.tmp_dir!(), "chatterbex-writer-doctest.wav")
      iex> Enum.into([audio, audio], Chatterbex.Audio.Writer.new(path))
      iex> {:ok, read} = Chatterbex.Audio.read(path)
      iex> byte_size(read.samples)
      8
      iex> File.rm(path)
      :ok
  """
  @spec new(Path.t(), keyword) :: t
  def new(path, options \\ []), do: %__MODULE__{path: path, options: options}

  @doc """
  Opens a writer.

  ## Options

  Those of the format: see `Chatterbex.Audio.to_format/3`.

  ## Examples

      iex> {:error, error} = Chatterbex.Audio.Writer.open("/no/such/folder/a.wav")
      iex> error.message
      "cannot write /no/such/folder/a.wav: no such file or directory (enoent). Make its folder first."
  """
  @spec open(Path.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def open(path, options \\ []) do
    with {:ok, path} <- Files.path(path),
         {:ok, format} <- Format.of_path(path),
         {:ok, checked} <- Options.validate(format, options),
         :ok <- replaceable(path),
         {:ok, replacement} <- create(path) do
      {:ok, %{new(path, options) | replacement: replacement, encoding: {format, checked}}}
    end
  end

  # How long the file is, its beginning says, and is known at its end.
  defp replaceable(path) do
    case File.stat(path) do
      {:ok, %{type: :directory}} ->
        {:error, Files.error("write", path, :eisdir)}

      {:ok, %{type: type}} when type != :regular ->
        {:error,
         Error.new(
           :file_error,
           "cannot write #{path}: a file that grows must be a regular file, and this is not one (#{type}). " <>
             "Write to a file, or send the audio chunk by chunk.",
           %{path: path}
         )}

      _regular_or_missing ->
        :ok
    end
  end

  defp create(path) do
    with {:error, posix} <- Replacement.open(path), do: {:error, Files.error("write", path, posix)}
  end

  @doc """
  Appends audio, at once.

  Audio of another sample rate or with other channels than the first is refused with `:invalid_audio`, as are samples that
  are not what they say; the writer stays as it was. After a `:file_error` nothing is left to do but `abort/1`.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "chatterbex-write-doctest.wav")
      iex> {:ok, writer} = Chatterbex.Audio.Writer.open(path)
      iex> {:ok, writer} = Chatterbex.Audio.Writer.write(writer, %Chatterbex.Audio{samples: "", sample_rate: 24_000})
      iex> {:error, error} = Chatterbex.Audio.Writer.write(writer, %Chatterbex.Audio{samples: "", sample_rate: 8_000})
      iex> String.ends_with?(error.message, "has 24000 Hz and 1 channel(s), this audio 8000 Hz and 1. Bring it to the same.")
      true
      iex> Chatterbex.Audio.Writer.abort(writer)
      :ok
  """
  @spec write(t, Audio.t()) :: {:ok, t} | {:error, Error.t()}
  def write(%__MODULE__{replacement: nil} = writer, %Audio{}), do: {:error, not_open(writer)}

  def write(%__MODULE__{} = writer, %Audio{} = audio) do
    with :ok <- Samples.check(audio),
         :ok <- same_form(writer, audio),
         {:ok, writer} <- begin(writer, audio),
         :ok <- fits(writer, audio),
         {:ok, bytes} <- Encoder.push(writer.encoder, audio),
         :ok <- append(writer, bytes),
         do: {:ok, %{writer | size: writer.size + byte_size(bytes)}}
  end

  defp same_form(%{form: form}, %{sample_rate: rate, channels: channels})
       when form in [nil, {rate, channels}],
       do: :ok

  defp same_form(%{form: {rate, channels}, path: path}, audio) do
    {:error,
     Error.new(
       :invalid_audio,
       "#{path} has #{rate} Hz and #{channels} channel(s), this audio #{inspect(audio.sample_rate)} Hz and " <>
         "#{inspect(audio.channels)}. Bring it to the same."
     )}
  end

  defp begin(%{form: nil, encoding: {format, options}} = writer, audio) do
    with {:ok, encoder} <- Encoder.new(format, audio.sample_rate, audio.channels, options),
         do: {:ok, %{writer | form: {audio.sample_rate, audio.channels}, encoder: encoder}}
  end

  defp begin(writer, _audio), do: {:ok, writer}

  # Refused before the encoder sees it, which then goes on with other audio.
  defp fits(%{encoding: {:wav, options}} = writer, audio) do
    if writer.size + div(byte_size(audio.samples), 4) * @widths[options.encoding] <= @most do
      :ok
    else
      {:error,
       Error.new(
         :file_error,
         "#{writer.path} would be larger than 4 GiB, which is all that a WAV file can hold. " <>
           "Close it and go on in another.",
         %{path: writer.path}
       )}
    end
  end

  defp fits(_writer, _audio), do: :ok

  defp append(writer, bytes) do
    with {:error, posix} <- :file.write(writer.replacement.file, bytes),
         do: {:error, Files.error("write", writer.path, posix)}
  end

  @doc """
  Ends the file and moves it to its place. Where that fails, and where nothing was written, there is no new file.

  A file that it replaces hands on its mode, and a symbolic link stays: what it points to is replaced.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "chatterbex-close-doctest.wav")
      iex> {:ok, writer} = Chatterbex.Audio.Writer.open(path)
      iex> {:error, error} = Chatterbex.Audio.Writer.close(writer)
      iex> {error.reason, File.exists?(path)}
      {:invalid_audio, false}
  """
  @spec close(t) :: :ok | {:error, Error.t()}
  def close(%__MODULE__{replacement: nil} = writer), do: {:error, not_open(writer)}

  def close(%__MODULE__{form: nil} = writer) do
    :ok = abort(writer)

    {:error,
     Error.new(
       :invalid_audio,
       "there was no audio to write to #{writer.path}. Write some before you close it."
     )}
  end

  def close(%__MODULE__{replacement: %{file: file}} = writer) do
    with {:ok, {bytes, patches}} <- Encoder.finish(writer.encoder),
         :ok <- append(writer, bytes),
         :ok <- written(:file.pwrite(file, patches), writer),
         :ok <- written(Replacement.commit(writer.replacement), writer) do
      :ok
    else
      {:error, error} ->
        :ok = abort(writer)
        {:error, error}
    end
  end

  defp written(:ok, _writer), do: :ok
  defp written(error, writer), do: {:error, Files.error("write", writer.path, posix(error))}

  defp posix({:error, {_written, posix}}), do: posix
  defp posix({:error, posix}), do: posix

  defp not_open(writer) do
    Error.new(
      :file_error,
      "the writer of #{Options.Schema.show(writer.path)} is not open: Chatterbex.Audio.Writer.open/2 gives one that is.",
      %{path: writer.path}
    )
  end

  @doc """
  Gives up: what was written is removed. A file that is closed already stays, and a writer that was never opened is no
  error.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "chatterbex-abort-doctest.wav")
      iex> {:ok, writer} = Chatterbex.Audio.Writer.open(path)
      iex> Chatterbex.Audio.Writer.abort(writer)
      :ok
      iex> File.exists?(path)
      false
  """
  @spec abort(t) :: :ok
  def abort(%__MODULE__{replacement: nil}), do: :ok
  def abort(%__MODULE__{replacement: replacement}), do: Replacement.abort(replacement)

  defimpl Inspect do
    def inspect(writer, _options), do: "#Chatterbex.Audio.Writer<#{Kernel.inspect(writer.path)}>"
  end

  defimpl Collectable do
    alias Chatterbex.Audio.Writer

    def into(writer) do
      case Writer.open(writer.path, writer.options) do
        {:ok, writer} -> {writer, &collect/2}
        {:error, error} -> raise error
      end
    end

    defp collect(writer, {:cont, audio}) do
      case Writer.write(writer, audio) do
        {:ok, writer} ->
          writer

        {:error, error} ->
          Writer.abort(writer)
          raise error
      end
    end

    defp collect(writer, :done) do
      with {:error, error} <- Writer.close(writer), do: raise(error)
      writer
    end

    defp collect(writer, :halt), do: Writer.abort(writer)
  end
end
