defmodule Chatterbex.ModelFiles.Removal do
  @moduledoc false
  # Removes a set's files of all revisions from the cache, except those that another model on this machine needs.
  # Other programs share the cache, so nothing else in it is touched.

  alias Chatterbex.Error
  alias Chatterbex.ModelFiles.{HubCache, Locator, Set}

  # A partial file that has not grown for this many seconds is abandoned.
  @abandoned 600

  @type removed :: %{files: [Path.t()], bytes: non_neg_integer}

  @spec run(Set.t(), Path.t()) :: {:ok, removed} | {:error, Error.t()}
  def run(set, home) do
    for folder <- Locator.joined_folders(set, home), do: File.rm_rf(folder)
    others = others(set)
    results = Enum.flat_map(set.sources, &remove_source(&1, others))

    case Enum.find(results, &match?({:error, _path, _reason}, &1)) do
      nil ->
        {:ok,
         %{
           files: for({:ok, path, _bytes} <- results, Path.basename(Path.dirname(path)) != "blobs", do: path),
           bytes: for({:ok, _path, bytes} <- results, reduce: 0, do: (sum -> sum + bytes))
         }}

      {:error, path, reason} ->
        {:error,
         Error.new(
           :file_error,
           "#{path} cannot be removed: #{:file.format_error(reason)}. Check who owns it.",
           %{path: path, posix: reason}
         )}
    end
  end

  defp others(set) do
    Enum.filter(Set.all(), fn other ->
      Set.describe(other) != Set.describe(set) and match?({:ok, _snapshots}, Locator.snapshots(other))
    end)
  end

  defp remove_source(source, others) do
    folder = HubCache.repository(source.repository)
    needed = for other <- others, its <- other.sources, its.repository == source.repository, do: its.files
    kept = needed |> List.flatten() |> MapSet.new(& &1.name)
    names = for file <- source.files, file.name not in kept, do: file.name

    snapshots = paths(folder, "snapshots/*")
    links = for snapshot <- snapshots, name <- names, path = Path.join(snapshot, name), there?(path), do: path
    blobs = links |> Enum.map(&target/1) |> Enum.uniq()

    removed = Enum.map(links, &remove/1)
    linked = folder |> paths("snapshots/*/**") |> MapSet.new(&target/1)
    freed = for blob <- blobs, blob not in linked, there?(blob), do: remove(blob)

    left = Enum.map(abandoned(folder), &remove/1)
    Enum.each(snapshots, &tidy(&1, folder))
    # Removes folders that are empty now.
    Enum.each(["snapshots", "blobs", "refs", ".no_exist", "."], &File.rmdir(Path.expand(&1, folder)))
    removed ++ freed ++ left
  end

  defp paths(folder, pattern) do
    for path <- :filelib.wildcard(to_charlist(pattern), to_charlist(folder)), do: Path.join(folder, path)
  end

  defp there?(path), do: match?({:ok, _stat}, File.lstat(path))

  defp target(path) do
    case File.read_link(path) do
      {:ok, target} -> Path.expand(target, Path.dirname(path))
      {:error, _no_link} -> path
    end
  end

  defp remove(path) do
    with {:ok, %File.Stat{type: type, size: size}} <- File.lstat(path),
         :ok <- File.rm(path) do
      {:ok, path, if(type == :symlink, do: 0, else: size)}
    else
      {:error, :enoent} -> {:ok, path, 0}
      {:error, reason} -> {:error, path, reason}
    end
  end

  # Removes an empty snapshot and the refs that point to it.
  defp tidy(snapshot, folder) do
    if File.rmdir(snapshot) == :ok do
      commit = Path.basename(snapshot)
      File.rm_rf(Path.join([folder, ".no_exist", commit]))
      for ref <- paths(folder, "refs/**"), File.read(ref) == {:ok, commit}, do: File.rm(ref)
    end
  end

  # It is no longer known which file such a part belongs to.
  defp abandoned(folder) do
    old = System.os_time(:second) - @abandoned

    for part <- paths(folder, "blobs/*.incomplete"),
        {:ok, %File.Stat{mtime: mtime}} <- [File.stat(part, time: :posix)],
        mtime < old,
        do: part
  end
end
