defmodule Chatterbex.Audio.Writer do
  @moduledoc """
  Writes audio to a file as it arrives: speech of any length, in constant memory.

  The file extension decides the format: WAV, FLAC, Ogg Opus or MP3.

      File.read!("book.txt")
      |> Chatterbex.stream(server: MyApp.Speech)
      |> Enum.into(Chatterbex.Audio.Writer.new("book.mp3"))

  or step by step:

      {:ok, writer} = Chatterbex.Audio.Writer.open("book.wav")
      {:ok, writer} = Chatterbex.Audio.Writer.write(writer, audio)
      :ok = Chatterbex.Audio.Writer.close(writer)

  The complete file appears under its name when you close the writer. Until then it is in the same folder, with the
  ending `.part`. The first audio sets the sample rate and the channels. Opus and MP3 support certain rates only, and at
  most two channels. A WAV file holds at most 4 GiB: 24 hours of 16-bit speech at 24 kHz. Only the process that opened a
  writer can use it. If that process ends before it closes the writer, the `.part` file stays.
  """

  alias Chatterbex.{Audio, Error, Files, Options}
  alias Chatterbex.Audio.{Encoder, Format, Samples}
  alias Chatterbex.Files.Replacement

  # The two sizes in the header of a WAV file have 32 bits. The 128 bytes leave room for the header.
  @max 0xFFFFFFFF - 128
  @widths %{s16: 2, s24: 3, f32: 4}

  @enforce_keys [:path, :options]
  @doc false
  defstruct [:path, :options, :replacement, :encoding, :form, :encoder, size: 0]

  @typedoc "A writer. Its fields are private."
  @opaque t :: %__MODULE__{}

  @doc """
  Returns a writer that opens its file when you collect audio into it with `Enum.into/2`.

  Collecting raises `Chatterbex.Error` where `open/2`, `write/2` or `close/1` would return one. No file is left behind
  then, nor if the collected stream raises or is halted.

  ## Options

  The options of the format: see `Chatterbex.Audio.to_format/3`.

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

  The options of the format: see `Chatterbex.Audio.to_format/3`.

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

  # The length goes into the header but is only known at the end, so the file must be seekable.
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
  Appends audio to the file at once.

  Audio with a different sample rate or number of channels than the first is refused with `:invalid_audio`, and so are
  invalid samples. You can still use the writer after that. After a `:file_error`, call `abort/1`.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "chatterbex-write-doctest.wav")
      iex> {:ok, writer} = Chatterbex.Audio.Writer.open(path)
      iex> {:ok, writer} = Chatterbex.Audio.Writer.write(writer, %Chatterbex.Audio{samples: "", sample_rate: 24_000})
      iex> {:error, error} = Chatterbex.Audio.Writer.write(writer, %Chatterbex.Audio{samples: "", sample_rate: 8_000})
      iex> String.ends_with?(error.message, "has 24000 Hz and 1 channel(s), this audio has 8000 Hz and 1. Convert it first.")
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
       "#{path} has #{rate} Hz and #{channels} channel(s), this audio has #{inspect(audio.sample_rate)} Hz and " <>
         "#{inspect(audio.channels)}. Convert it first."
     )}
  end

  defp begin(%{form: nil, encoding: {format, options}} = writer, audio) do
    with {:ok, encoder} <- Encoder.new(format, audio.sample_rate, audio.channels, options),
         do: {:ok, %{writer | form: {audio.sample_rate, audio.channels}, encoder: encoder}}
  end

  defp begin(writer, _audio), do: {:ok, writer}

  # Refused before the encoder sees it, so that the writer can still be closed.
  defp fits(%{encoding: {:wav, options}} = writer, audio) do
    if writer.size + div(byte_size(audio.samples), 4) * @widths[options.encoding] <= @max do
      :ok
    else
      {:error,
       Error.new(
         :file_error,
         "#{writer.path} would be larger than 4 GiB, the most that a WAV file can hold. " <>
           "Close it and continue in another file.",
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
  Completes the file and moves it to its place. If that fails, or if nothing was written, there is no new file.

  If it replaces a file, the new file keeps the mode of the old one. If the path is a symbolic link, the link stays and
  its target is replaced.

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
      "the writer of #{Options.Schema.show(writer.path)} is not open: open one with Chatterbex.Audio.Writer.open/2.",
      %{path: writer.path}
    )
  end

  @doc """
  Abandons the file and removes what was written. A file that is already closed stays. Aborting a writer that was never
  opened does nothing.

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
