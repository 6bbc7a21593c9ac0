defmodule Chatterbex.Voice.Folder do
  @moduledoc false
  # A folder of voices. A voice is one or more files with its name: `ann.voice` is a saved voice, `ann.wav` a recording.
  # Each call reads the folder again, so that new files are found.

  alias Chatterbex.{Error, Files}

  @saved [".voice", ".safetensors"]
  @recordings [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"]

  @type entry :: {name :: String.t(), [Path.t()]}

  @doc """
  Whether a file is a saved voice, by its name.
  """
  @spec saved?(Path.t()) :: boolean
  def saved?(path), do: ending(path) in @saved

  @doc """
  All voices, sorted by name, saved voices before recordings.
  """
  @spec list(Path.t()) :: {:ok, [entry]} | {:error, Error.t()}
  def list(folder) do
    case File.ls(folder) do
      {:ok, files} ->
        {:ok,
         files
         |> Enum.filter(&(rank(&1) != nil and name?(Path.rootname(&1))))
         |> Enum.sort_by(&rank/1)
         |> Enum.group_by(&Path.rootname/1, &Path.join(folder, &1))
         |> Enum.sort()}

      {:error, posix} ->
        {:error,
         Error.new(
           :file_error,
           "the folder of voices #{folder} cannot be read: #{:file.format_error(posix)} (#{posix}). " <>
             "Make it, or change `config :chatterbex, voices: ...`.",
           %{path: folder, posix: posix}
         )}
    end
  end

  @doc """
  Whether a string can be the name of a voice in a folder. A path cannot.
  """
  @spec name?(String.t()) :: boolean
  def name?(name) do
    String.printable?(name) and name != "" and not String.starts_with?(name, ".") and
      not String.contains?(name, ["/", "\\"])
  end

  @doc """
  Adds a saved voice under a name that is still free. Its file appears whole or not at all.
  """
  @spec add(Path.t(), String.t(), binary) :: :ok | {:error, Error.t()}
  def add(folder, name, data) do
    path = Path.join(folder, name <> hd(@saved))

    with {:ok, entries} <- list(folder),
         false <- name?(name) and List.keymember?(entries, name, 0),
         :ok <- Files.write_new(path, data) do
      :ok
    else
      {:error, %Error{details: %{posix: posix}} = error} when posix != :eexist -> {:error, error}
      _there -> {:error, taken(name)}
    end
  end

  defp taken(name) do
    Error.new(:file_error, "the folder already has a voice #{inspect(name)}", %{name: name})
  end

  defp rank(file), do: Enum.find_index(@saved ++ @recordings, &(&1 == ending(file)))
  defp ending(path), do: path |> Path.extname() |> String.downcase()
end
