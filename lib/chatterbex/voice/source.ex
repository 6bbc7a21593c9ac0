defmodule Chatterbex.Voice.Source do
  @moduledoc false
  # Reads saved voices and recordings from files. They are cached until the file changes: see Chatterbex.Voice.FileCache.

  alias Chatterbex.{Audio, Error, Files, Terminal}
  alias Chatterbex.Voice.{FileCache, Folder, Recording, Saved}

  @max_bytes 64_000_000

  @type t :: Saved.t() | Recording.t()

  @typedoc "An entry of a folder of voices: see `t:Chatterbex.Voice.entry/0`."
  @type entry :: %{name: String.t(), kind: :saved | :recording, path: Path.t(), family: String.t() | nil}

  @doc """
  Reads a saved voice or a recording. The file extension decides which.
  """
  @spec read(Path.t()) :: {:ok, t} | {:error, Error.t()}
  def read(path) do
    with {:ok, stat} <- stat(path) do
      FileCache.fetch(Path.expand(path), stat, fn -> load(path) end)
    end
  end

  defp load(path) do
    if Folder.saved?(path) do
      with {:ok, voice} <- saved(path), do: {:ok, voice, byte_size(voice.data)}
    else
      with {:ok, recording} <- path |> Audio.read(limits()) |> recording(path) do
        Recording.warn(recording, path)
        {:ok, recording, byte_size(recording.samples)}
      end
    end
  end

  @doc """
  The recording in the bytes of a file.
  """
  @spec decode(binary) :: {:ok, Recording.t()} | {:error, Error.t()}
  def decode(bytes), do: bytes |> Audio.from_format(limits()) |> recording("recording")

  @doc """
  Reads a saved voice, whatever its file extension.
  """
  @spec saved(Path.t()) :: {:ok, Saved.t()} | {:error, Error.t()}
  def saved(path) do
    with {:ok, _stat} <- stat(path),
         {:ok, data} <- Files.read(path),
         {:error, why} <- Saved.read(data),
         do: {:error, unreadable(path, "it " <> why)}
  end

  defp recording({:ok, audio}, path) do
    with {:error, error} <- Recording.new(audio), do: recording({:error, error}, path)
  end

  defp recording({:error, %Error{reason: :native_not_loaded} = error}, _path), do: {:error, error}

  defp recording({:error, %Error{details: %{cause: :too_long}}}, path),
    do:
      {:error,
       unreadable(path, "it is longer than #{Recording.longest()} s; cut out 10 to 15 s of clear speech")}

  defp recording({:error, error}, path), do: {:error, unreadable(path, error.message)}

  @doc """
  The file's size and modification time; an error if it is not a file, or is too large for a voice.
  """
  @spec stat(Path.t()) :: {:ok, File.Stat.t()} | {:error, Error.t()}
  def stat(path) do
    with {:ok, path} <- Files.path(path), do: path |> File.stat(time: :posix) |> stat(path)
  end

  defp stat(result, path) do
    case result do
      {:ok, %{type: :regular, size: size} = stat} when size <= @max_bytes -> {:ok, stat}
      {:ok, %{type: :regular, size: size}} -> {:error, unreadable(path, too_large(size))}
      {:ok, %{type: type}} -> {:error, unreadable(path, "it is not a file but a #{type}")}
      {:error, posix} -> {:error, unreadable(path, "#{:file.format_error(posix)} (#{posix})")}
    end
  end

  defp too_large(size) do
    "it has #{Terminal.bytes(size)}; at most #{Terminal.bytes(@max_bytes)} are read, and a recording of 10 to 15 s " <>
      "is best"
  end

  defp unreadable(path, why) do
    why = String.replace_prefix(why, "#{path}: ", "")
    Error.new(:voice_unreadable, "the voice #{path} cannot be read: #{why}", %{path: path})
  end

  @doc """
  The voice of this name in a folder: a saved one of this family if there is one, else a recording, else a saved one of
  another family.
  """
  @spec named(Path.t(), String.t(), String.t()) :: {:ok, t} | {:error, Error.t()} | :unknown
  def named(folder, name, family) do
    with {:ok, entries} <- Folder.list(folder),
         {_name, files} <- List.keyfind(entries, name, 0, :unknown) do
      files |> Enum.split_with(&Folder.saved?/1) |> choose(family)
    end
  end

  defp choose({[], [recording | _same_name]}, _family), do: read(recording)
  defp choose({[saved | _same_name], []}, _family), do: read(saved)

  defp choose({[saved | _], [recording | _]}, family) do
    case read(saved) do
      {:ok, %Saved{family: ^family} = voice} -> {:ok, voice}
      {:ok, _other_family} -> read(recording)
      {:error, error} -> {:error, error}
    end
  end

  @doc """
  The voices of a folder.
  """
  @spec entries(Path.t()) :: {:ok, [entry]} | {:error, Error.t()}
  def entries(folder) do
    with {:ok, entries} <- Folder.list(folder), do: {:ok, Enum.map(entries, &entry/1)}
  end

  defp entry({name, [path | _same_name]}) do
    kind = if Folder.saved?(path), do: :saved, else: :recording
    %{name: name, kind: kind, path: path, family: (kind == :saved && family(path)) || nil}
  end

  defp family(path) do
    case read(path) do
      {:ok, voice} -> voice.family
      {:error, _unreadable} -> nil
    end
  end

  # More than the longest recording, so that the error for one that is slightly too long can name its length.
  defp limits, do: [max_bytes: @max_bytes, max_seconds: 2 * Recording.longest()]
end
