defmodule Chatterbex.ModelFiles do
  @moduledoc """
  The files of the Chatterbox models: where they are, fetching, checking and removing them.

      mix chatterbex.models download turbo

  does it on the command line; in a release, `bin/my_app eval 'Chatterbex.ModelFiles.download!(:turbo)'`.

  They live in the user's Hugging Face cache, shared with every other program that uses it, and only those files
  are fetched that a model needs. These variables have the meaning that they have elsewhere:

  | variable | meaning |
  |---|---|
  | `HF_HOME` | the folder that holds the cache, as `hub`; default `~/.cache/huggingface` |
  | `HF_HUB_CACHE` | the cache itself |
  | `HF_TOKEN` | the token for repositories that ask for one |
  | `HF_ENDPOINT` | another hub, such as a mirror |
  | `HF_HUB_OFFLINE` | `1` forbids to ask the hub |

  ## Options

  All functions take these:

    * `:version` - `:v3` (the default) or `:v2`, of `:multilingual`.
    * `:language_pack` - of `:multilingual`: `"zh-cmn"`, `"es-mx-latam"`, `"pt-br"`, `"es-es"`, `"pt-pt"` or
      `"hi"`. Most of a pack is in a repository of its own, the rest is that of `:multilingual`.
    * `:revision` - a branch, a tag or a commit of the repository. Default: `"main"`.
    * `:home` - the folder that `mix chatterbex.setup --path` was given.

  Errors have the reason `:model_files_missing`, with `details.why` where fetching failed: `:gated`,
  `:unauthorized`, `:not_found`, `:rate_limited`, `:connection`, `:checksum`, `:offline`, `:refused`,
  `:not_a_hub` or `:crashed`; `:file_error` where the disk is full (`why: :disk_full`) or cannot be written
  (`why: :file`); `:not_set_up` where the Python environment lacks what fetches; `:unknown_model`,
  `:not_supported` or `:invalid_option`.
  """

  alias Chatterbex.{Error, Options, Python, Telemetry}
  alias Chatterbex.ModelFiles.{Cache, Download, Set}

  @names [:version, :language_pack, :revision, :home]

  @doc """
  Finds the folder with all the files of a model. It looks at files only: no network, and no other program.

  Options: those above, and `:checkpoint`, a folder of your own that is looked at instead of the cache.

  A language pack's folder is made of links to the files of two repositories; it is in the home
  (`Chatterbex.Python.home/1`).

  ## Examples

      iex> {:error, error} = Chatterbex.ModelFiles.locate(:turbo, checkpoint: "/nowhere")
      iex> error.message
      "the files of :turbo are not in /nowhere: there is no such folder. Check the folder given as :checkpoint."
  """
  @spec locate(atom | String.t(), keyword) :: {:ok, Path.t()} | {:error, Error.t()}
  def locate(model, options \\ []) do
    with :ok <- known(options, [:checkpoint | @names]),
         {:ok, set} <- Set.fetch(model, options) do
      case options[:checkpoint] do
        nil -> located(set, options)
        folder -> own(set, folder)
      end
    end
  end

  @doc """
  Fetches what is missing of a model's files, and gives the folder that has them all.

  With nothing missing it asks nobody. A transfer that was cut off goes on where it was; a file is taken only
  when its checksum is right. It ends with the calling process. Sends `[:chatterbex, :model, :download, ...]`
  events: see `Chatterbex.Telemetry`.

  Options: those above, and

    * `:force` - `true` asks the hub although nothing is missing: what the revision has newer is fetched, and so is
      what turns out to be damaged. Default: `false`.
    * `:on_progress` - a function that is called in the calling process with a map, several times a second:
      `:model`, `:status` (`:fetching`, `:checking`, `:waiting` or `:done`, of the file), `:file`, `:repository`,
      `:file_bytes` of `:file_total`, `:bytes` of `:total` (of all files), and `:message`, which says what is waited
      for, or `nil`.

  ## Examples

      {:ok, folder} = Chatterbex.ModelFiles.download(:turbo, on_progress: &IO.inspect/1)
  """
  @spec download(atom | String.t(), keyword) :: {:ok, Path.t()} | {:error, Error.t()}
  def download(model, options \\ []) do
    with :ok <- known(options, [:force, :on_progress, :patience | @names]),
         :ok <- callback(options[:on_progress]),
         {:ok, set} <- Set.fetch(model, options) do
      if options[:force] != true and whole?(set), do: located(set, options), else: fetch(set, options)
    end
  end

  @doc """
  As `download/2`, but raises the error, and prints what it does to stderr, for `eval` in a release.

  ## Examples

      iex> Chatterbex.ModelFiles.download!(:turbo, revision: "../main")
      ** (Chatterbex.Error) option :revision must be a branch, a tag or a commit, as "main", got "../main"
  """
  @spec download!(atom | String.t(), keyword) :: Path.t()
  def download!(model, options \\ []) do
    report = fn
      %{status: :done} = progress -> IO.puts(:stderr, "#{progress.file}: #{progress.file_total} bytes")
      _between -> :ok
    end

    case download(model, Keyword.put_new(options, :on_progress, report)) do
      {:ok, folder} -> folder
      {:error, error} -> raise error
    end
  end

  @doc """
  The Hugging Face cache that is used.

  ## Examples

      iex> Path.type(Chatterbex.ModelFiles.cache_folder())
      :absolute
  """
  @spec cache_folder() :: Path.t()
  def cache_folder, do: Cache.folder()

  defp fetch(set, options) do
    metadata = %{
      model: set.model,
      version: set.version,
      language_pack: set.language_pack,
      revision: hd(set.sources).revision
    }

    report = fn progress ->
      measurements = Map.take(progress, [:bytes, :total, :file_bytes, :file_total])
      about = Map.merge(metadata, Map.take(progress, [:status, :file, :repository, :message]))
      Telemetry.execute([:chatterbex, :model, :download, :progress], measurements, about)
      if options[:on_progress], do: options[:on_progress].(progress)
    end

    Telemetry.span([:chatterbex, :model, :download], %{}, metadata, fn ->
      with {:ok, done} <- Download.run(set, options, report),
           {:ok, folder} <- located(set, options) do
        {:ok, folder, Map.take(done, [:fetched, :total]), %{folder: folder}}
      end
    end)
  end

  # Whether nothing is left to fetch, what a model loads without included.
  defp whole?(set) do
    Enum.all?(set.sources, fn source ->
      case Cache.snapshot(source.repository, source.revision) do
        {:ok, snapshot} -> Enum.all?(source.files, &present?(&1, source, snapshot))
        :error -> false
      end
    end)
  end

  defp present?(file, source, snapshot) do
    is_nil(Cache.fault(Path.join(snapshot, file.name))) or
      (file.optional and Cache.known_absent?(source.repository, snapshot, file.name))
  end

  defp located(set, options) do
    with {:ok, snapshots} <- snapshots(set) do
      case snapshots do
        [{_source, snapshot}] -> {:ok, snapshot}
        several -> joined(set, several, options)
      end
    end
  end

  defp snapshots(set) do
    found =
      for source <- set.sources do
        case Cache.snapshot(source.repository, source.revision) do
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

  defp faults(folder, files, name) do
    for file <- files, not file.optional, fault = Cache.fault(Path.join(folder, name.(file))) do
      {name.(file), fault}
    end
  end

  # A folder of links to files of several repositories, called by what it links to: it never changes.
  defp joined(set, snapshots, options) do
    links =
      for {source, snapshot} <- snapshots,
          file <- source.files,
          path = Path.join(snapshot, file.name),
          not file.optional or File.exists?(path),
          do: {file.as, path}

    digest = :sha256 |> :crypto.hash(:erlang.term_to_binary(links)) |> Base.encode16(case: :lower)
    name = "#{set.model}-#{set.language_pack}-#{binary_part(digest, 0, 12)}"
    folder = Path.join([Python.home(home: options[:home]), "models", name])

    case make(folder, links) do
      :ok ->
        {:ok, folder}

      {:error, reason} ->
        {:error,
         Error.new(
           :file_error,
           "the folder #{folder} cannot be made: #{:file.format_error(reason)}. Check who owns it, or name " <>
             "another home in CHATTERBEX_HOME.",
           %{path: folder, posix: reason}
         )}
    end
  end

  defp make(folder, links) do
    if File.dir?(folder) do
      :ok
    else
      new = "#{folder}.#{System.pid()}-#{System.unique_integer([:positive])}"

      made =
        with :ok <- File.mkdir_p(new),
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

  defp own(set, folder) when is_binary(folder) do
    folder = Path.expand(folder)
    files = Enum.flat_map(set.sources, & &1.files)
    # A pack that was brought by other means may call its T3 as it likes.
    named? = is_nil(set.language_pack) or Path.wildcard(Path.join(folder, "t3*.safetensors")) == []
    files = if named?, do: files, else: Enum.reject(files, &String.starts_with?(&1.name, "t3"))

    if File.dir?(folder) do
      case faults(folder, files, & &1.as) do
        [] -> {:ok, folder}
        faults -> {:error, not_in(set, folder, listed(faults), faults)}
      end
    else
      {:error, not_in(set, folder, "there is no such folder", [])}
    end
  end

  defp own(_set, folder) do
    {:error,
     Error.new(:invalid_option, "option :checkpoint must be a folder's path, got #{inspect(folder)}", %{
       option: :checkpoint,
       got: folder
     })}
  end

  defp not_in(set, folder, why, faults) do
    Error.new(
      :model_files_missing,
      "the files of #{Set.describe(set)} are not in #{folder}: #{why}. Check the folder given as :checkpoint.",
      %{model: set.model, folder: folder, files: Enum.map(faults, &elem(&1, 0))}
    )
  end

  defp not_here(set, source) do
    missing(
      set,
      "#{source.repository}#{at(source)} is not in the Hugging Face cache, #{Cache.folder()}",
      %{repository: source.repository, files: for(file <- source.files, not file.optional, do: file.name)}
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
    command = command(set)

    Error.new(
      :model_files_missing,
      "the files of #{Set.describe(set)} are not all on this machine: #{why}. Run: #{command}",
      Map.merge(%{model: set.model, command: command}, details)
    )
  end

  defp at(%{revision: "main"}), do: ""
  defp at(%{revision: revision}), do: " (revision #{revision})"

  defp listed(faults), do: Enum.map_join(faults, ", ", fn {name, fault} -> "#{name} #{fault}" end)

  # What fetches the files, as the user has to type it.
  defp command(set) do
    case System.get_env("RELEASE_ROOT") do
      nil ->
        Enum.join(["mix chatterbex.models download" | Set.arguments(set)], " ")

      root ->
        options = Enum.map_join(Set.options(set), fn {name, value} -> ", #{name}: #{inspect(value)}" end)
        program = Path.join(root, "bin/#{System.get_env("RELEASE_NAME", "my_app")}")
        "#{program} eval 'Chatterbex.ModelFiles.download!(#{inspect(set.model)}#{options})'"
    end
  end

  defp known(options, names) do
    cond do
      not Keyword.keyword?(options) ->
        {:error, Error.new(:invalid_option, "options must be a keyword list, got #{inspect(options)}")}

      name = Enum.find(Keyword.keys(options), &(&1 not in names)) ->
        hint = Options.did_you_mean(name, names)
        shown = Enum.map_join(names -- [:patience], ", ", &inspect/1)

        {:error,
         Error.new(:invalid_option, "unknown option #{inspect(name)}.#{hint} The options are #{shown}.")}

      true ->
        :ok
    end
  end

  defp callback(function) when is_nil(function) or is_function(function, 1), do: :ok

  defp callback(other) do
    {:error,
     Error.new(
       :invalid_option,
       "option :on_progress must be a function of one argument, got #{inspect(other)}"
     )}
  end
end
