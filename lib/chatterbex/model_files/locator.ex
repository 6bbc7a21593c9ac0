defmodule Chatterbex.ModelFiles.Locator do
  @moduledoc false
  # Where the files of a set are: in the cache, or in the user's own folder. The user's own T3 is a separate file.

  alias Chatterbex.{Error, Files.Replacement}
  alias Chatterbex.ModelFiles.{HubCache, Set}

  @doc """
  The folder with all files of a set in the cache.
  """
  @spec find(Set.t(), Path.t()) :: {:ok, Path.t()} | {:error, Error.t()}
  def find(set, home) do
    with :ok <- t3(set), {:ok, snapshots} <- snapshots(set) do
      case snapshots do
        [{source, snapshot}] -> if renamed?(source), do: joined(set, snapshots, home), else: {:ok, snapshot}
        several -> joined(set, several, home)
      end
    end
  end

  defp renamed?(source), do: Enum.any?(source.files, &(&1.name != &1.as))

  @doc """
  Where the files of a set come from, as far as known. Files that the repository of a fine-tune is known to lack come
  from the model's own repository.
  """
  @spec sources(Set.t()) :: [Set.source(), ...]
  def sources(%Set{sources: [own | others], base: [base]}) do
    case HubCache.snapshot(own.repository, own.revision) do
      {:ok, snapshot} ->
        {lacking, its} = Enum.split_with(own.files, &lacking?(&1, own, snapshot))
        names = Enum.map(lacking, & &1.as)
        sources = [%{own | files: its}, %{base | files: Enum.filter(base.files, &(&1.as in names))}]
        Enum.reject(sources, &(&1.files == [])) ++ others

      :error ->
        [own | others]
    end
  end

  def sources(%Set{sources: sources, base: []}), do: sources

  defp lacking?(file, source, snapshot) do
    not Set.t3?(file) and not File.exists?(Path.join(snapshot, file.name)) and
      HubCache.known_absent?(source.repository, snapshot, file.name)
  end

  # The T3 that the user gave as a file.
  defp t3(%Set{t3: path, repo: nil} = set) when is_binary(path) do
    case HubCache.fault(path) do
      nil ->
        :ok

      fault ->
        {:error,
         Error.new(
           :model_files_missing,
           "the T3 of #{inspect(set.model)} cannot be used: #{path} #{fault}. Check the file given as :t3.",
           %{model: set.model, path: path, files: [path]}
         )}
    end
  end

  defp t3(_set), do: :ok

  @doc """
  The snapshots that a set's files are in, one for each of its sources.
  """
  @spec snapshots(Set.t()) :: {:ok, [{Set.source(), Path.t()}, ...]} | {:error, Error.t()}
  def snapshots(set) do
    found =
      for source <- sources(set) do
        case HubCache.snapshot(source.repository, source.revision) do
          {:ok, snapshot} -> {source, snapshot, faults(snapshot, source.files, & &1.name)}
          :error -> {source, nil, nil}
        end
      end

    case Enum.find(found, fn {_source, _snapshot, faults} -> faults != [] end) do
      nil -> {:ok, for({source, snapshot, []} <- found, do: {source, snapshot})}
      {source, nil, nil} -> {:error, not_here(set, source)}
      {source, snapshot, faults} -> {:error, incomplete(set, source, snapshot, faults)}
    end
  end

  @doc """
  Whether nothing is left to fetch, including optional files.
  """
  @spec complete?(Set.t()) :: boolean
  def complete?(set) do
    Enum.all?(sources(set), fn source ->
      case HubCache.snapshot(source.repository, source.revision) do
        {:ok, snapshot} -> Enum.all?(source.files, &settled?(&1, source, snapshot))
        :error -> false
      end
    end)
  end

  defp settled?(file, source, snapshot) do
    is_nil(HubCache.fault(Path.join(snapshot, file.name))) or
      (file.optional and HubCache.known_absent?(source.repository, snapshot, file.name))
  end

  @doc """
  Checks the user's own folder.
  """
  @spec check_folder(Set.t(), term) :: {:ok, Path.t()} | {:error, Error.t()}
  def check_folder(set, folder) when is_binary(folder) do
    folder = Path.expand(folder)

    cond do
      set.repo ->
        {:error, Error.new(:invalid_option, "give either :checkpoint or :repo, not both.")}

      not File.dir?(folder) ->
        {:error, not_in(set, folder, "there is no such folder", [])}

      true ->
        with :ok <- t3(set), do: complete(set, folder)
    end
  end

  def check_folder(_set, folder) do
    {:error,
     Error.new(:invalid_option, "option :checkpoint must be a folder's path, got #{inspect(folder)}", %{
       option: :checkpoint,
       got: folder
     })}
  end

  defp complete(set, folder) do
    case faults(folder, own_files(set, folder), & &1.as) do
      [] -> {:ok, folder}
      faults -> {:error, not_in(set, folder, listed(faults), faults)}
    end
  end

  # A language pack that was not downloaded here may have any name for its T3.
  defp own_files(set, folder) do
    files = Enum.flat_map(set.sources, & &1.files)

    if set.language_pack && :filelib.wildcard(~c"t3*.safetensors", to_charlist(folder)) != [],
      do: Enum.reject(files, &String.starts_with?(&1.name, "t3")),
      else: files
  end

  defp faults(folder, files, name) do
    for file <- files, not file.optional, fault = HubCache.fault(Path.join(folder, name.(file))) do
      {name.(file), fault}
    end
  end

  # A folder of links to files of several repositories. Its name depends on the targets, so its contents never change.
  defp joined(set, snapshots, home) do
    links =
      for {source, snapshot} <- snapshots,
          file <- source.files,
          path = Path.join(snapshot, file.name),
          not file.optional or File.exists?(path),
          do: {file.as, path}

    digest = :sha256 |> :crypto.hash(:erlang.term_to_binary(links)) |> Base.encode16(case: :lower)
    folder = joined_prefix(set, home) <> binary_part(digest, 0, 12)

    case make(folder, links) do
      :ok ->
        {:ok, folder}

      {:error, reason} ->
        {:error,
         Error.new(
           :file_error,
           "the folder #{folder} cannot be made: #{:file.format_error(reason)}. Check who owns it, or set " <>
             "another home in CHATTERBEX_HOME.",
           %{path: folder, posix: reason}
         )}
    end
  end

  @doc """
  The folders of links that were made for a set.
  """
  @spec joined_folders(Set.t(), Path.t()) :: [Path.t()]
  def joined_folders(set, home) do
    prefix = joined_prefix(set, home)
    folder = Path.dirname(prefix)

    for name <- :filelib.wildcard(~c"*", to_charlist(folder)),
        path = Path.join(folder, name),
        String.replace_prefix(path, prefix, "") =~ ~r/\A[0-9a-f]{12}/,
        do: path
  end

  defp joined_prefix(set, home) do
    name = set.language_pack || String.replace(set.repo || "", "/", "--")
    flow = if set.flow, do: "#{set.flow}-"
    Path.join([home, "models", "#{set.model}-#{name}-#{flow}"])
  end

  defp make(folder, links) do
    if File.dir?(folder) do
      :ok
    else
      new = Replacement.unique(folder)

      made =
        with :ok <- File.mkdir_p(Path.dirname(new)),
             :ok <- File.mkdir(new),
             nil <- Enum.find_value(links, &failed_link(&1, new)),
             do: File.rename(new, folder)

      _gone = File.rm_rf(new)
      # Another process may have been first.
      if File.dir?(folder), do: :ok, else: made
    end
  end

  defp failed_link({name, path}, folder) do
    with :ok <- File.ln_s(path, Path.join(folder, name)), do: nil
  end

  defp not_in(set, folder, why, faults) do
    Error.new(
      :model_files_missing,
      "the files of #{Set.describe(set)} are not in #{folder}: #{why}. Check the folder given as :checkpoint.",
      %{model: set.model, folder: folder, files: Enum.map(faults, &elem(&1, 0))}
    )
  end

  defp not_here(set, source) do
    files = for file <- source.files, not file.optional, do: file.name

    missing(
      set,
      "#{source.repository}#{at(source)} is not in the Hugging Face cache, #{HubCache.folder()}",
      %{repository: source.repository, files: files}
    )
  end

  defp incomplete(set, source, snapshot, faults) do
    missing(
      set,
      "#{listed(faults)} in #{snapshot}",
      %{repository: source.repository, folder: snapshot, files: Enum.map(faults, &elem(&1, 0))}
    )
  end

  defp missing(set, why, details) do
    command = Set.download_command(set)

    part =
      if HubCache.part?(details.repository), do: " A download was interrupted: the next one continues there."

    Error.new(
      :model_files_missing,
      "the files of #{Set.describe(set)} are not all on this machine: #{why}.#{part} Run: #{command}",
      Map.merge(%{model: set.model, command: command}, details)
    )
  end

  defp at(%{revision: "main"}), do: ""
  defp at(%{revision: revision}), do: " (revision #{revision})"

  defp listed(faults), do: Enum.map_join(faults, ", ", fn {name, fault} -> "#{name} #{fault}" end)
end
