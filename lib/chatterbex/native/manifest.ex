defmodule Chatterbex.Native.Manifest do
  @moduledoc false
  # Remembers what the installed libraries were made from, so that a compilation that would make the same does nothing.

  @version 2

  @typedoc "Where libraries come from: an archive, or sources with the files that they consist of."
  @type origin :: {:archive, Chatterbex.Native.Checksums.archive()} | {:sources, [Path.t()]}

  @doc """
  Whether these libraries are there and come from this origin, as it is now.
  """
  @spec fresh?(Path.t(), origin, [Path.t()]) :: boolean
  def fresh?(path, origin, libraries) do
    read(path) == {:ok, content(origin, libraries)} and Enum.all?(libraries, &File.regular?/1)
  end

  @spec write(Path.t(), origin, [Path.t()]) :: :ok
  def write(path, origin, libraries) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, :erlang.term_to_binary(content(origin, libraries)))
  end

  defp content({:archive, archive}, libraries), do: {@version, archive.sha256, fingerprints(libraries)}

  defp content({:sources, sources}, libraries),
    do: {@version, fingerprints(sources), fingerprints(libraries)}

  defp fingerprints(paths) do
    for path <- paths do
      case File.stat(path, time: :posix) do
        {:ok, stat} -> {path, stat.mtime, stat.size}
        {:error, reason} -> {path, reason}
      end
    end
  end

  defp read(path) do
    with {:ok, binary} <- File.read(path), do: {:ok, :erlang.binary_to_term(binary, [:safe])}
  rescue
    ArgumentError -> :error
  end
end
