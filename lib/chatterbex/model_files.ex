defmodule Chatterbex.ModelFiles do
  @moduledoc """
  Finds, fetches, checks and removes the files of the Chatterbox models.

  On the command line, use

      mix chatterbex.models download turbo

  In a release, use `bin/my_app eval 'Chatterbex.ModelFiles.download!(:turbo)'`.

  The files are in the user's Hugging Face cache, which other programs share. Only the files that a model needs are
  fetched. These variables have their usual meaning:

  | variable | meaning |
  |---|---|
  | `HF_HOME` | the folder that holds the cache, as `hub`; default `~/.cache/huggingface` |
  | `HF_HUB_CACHE` | the cache itself |
  | `HF_TOKEN` | the token for repositories that ask for one |
  | `HF_ENDPOINT` | another hub, such as a mirror |
  | `HF_HUB_OFFLINE` | `1` forbids all requests to the hub |

  ## Options

  All functions accept these:

    * `:version` - `:v3` (the default) or `:v2`, for `:multilingual`.
    * `:language_pack` - for `:multilingual`: `"zh-cmn"`, `"es-mx-latam"`, `"pt-br"`, `"es-es"`, `"pt-pt"` or
      `"hi"`. Most files of a pack are in its own repository; the others are those of `:multilingual`.
    * `:flow` - `:meanflow` replaces the flow of `:english`, `:multilingual` and `:conversion` with the distilled flow
      of `:turbo`: one file of S3Gen from turbo's repository.
    * `:repo` - the repository of a fine-tune, as in `"someone/chatterbox-german"`: see below.
    * `:t3` - a fine-tuned T3, a `.safetensors` file: its path or, with `:repo`, its name in the repository.
    * `:revision` - a branch, a tag or a commit of the repository. Default: `"main"`.
    * `:home` - the folder that you gave to `mix chatterbex.setup --path`.

  ## Fine-tunes

  A fine-tune is a T3 that was trained further, sometimes with other files, such as a tokenizer. Name the model that it
  was made from, and give the T3 as a file or the repository that has it:

      {:ok, folder} = Chatterbex.ModelFiles.download(:english, t3: "german/t3_cfg.safetensors")
      {:ok, folder} = Chatterbex.ModelFiles.download(:english, repo: "someone/chatterbox-german")

  The repository must have the T3, under the same name as in the model's own repository (`t3_cfg.safetensors` for
  `:english`) or under the name given as `:t3`. Other files of the model are used too if the repository has them under
  their usual names. Files that it lacks come from the model's own repository.

  ## Errors

  Errors have the reason `:model_files_missing`, with `details.why` if fetching failed: `:gated`,
  `:unauthorized`, `:not_found`, `:rate_limited`, `:connection`, `:checksum`, `:offline`, `:refused`,
  `:not_a_hub` or `:crashed`; `:file_error` if the disk is full (`why: :disk_full`) or cannot be written
  (`why: :file`); `:not_set_up` if the Python environment lacks the packages that fetch; `:unknown_model`,
  `:not_supported` or `:invalid_option`.
  """

  alias Chatterbex.{Error, Options, Python, Telemetry}
  alias Chatterbex.ModelFiles.{HubCache, Integrity, Download, Locator, Removal, Set}

  @names [:version, :language_pack, :flow, :repo, :t3, :revision, :home]

  @typedoc """
  The files of a model on this machine. `folder` has all of them, or is `nil` if some are missing. `files` are those that
  exist, `missing` those that do not, and `bytes` is the disk space that they take.
  """
  @type description :: %{
          model: atom,
          version: :v2 | :v3 | nil,
          language_pack: String.t() | nil,
          repositories: [String.t(), ...],
          folder: Path.t() | nil,
          files: [String.t()],
          missing: [String.t()],
          bytes: non_neg_integer
        }

  @typedoc """
  A checked file. `checksum` is the kind that was compared, or `nil` if none is known and only the file's form was checked.
  """
  @type checked :: %{file: String.t(), bytes: pos_integer, checksum: :sha256 | :git_sha1 | nil}

  @doc """
  Lists all models that have files, with a separate entry for each version and language pack, and which files exist.

  Options: `:home`.

  ## Examples

      iex> {:error, error} = Chatterbex.ModelFiles.list(home: 5)
      iex> error.message
      "option :home must be a string, got 5"

      iex> for %{model: model, language_pack: nil} <- Chatterbex.ModelFiles.list(), uniq: true, do: model
      [:english, :multilingual, :turbo, :nano, :conversion]
  """
  @spec list(keyword) :: [description] | {:error, Error.t()}
  def list(options \\ []),
    do: with(:ok <- known(options, [:home]), do: Enum.map(Set.all(), &describe(&1, options)))

  defp describe(set, options) do
    found =
      for source <- set.sources, file <- source.files do
        with {:ok, snapshot} <- HubCache.snapshot(source.repository, source.revision),
             path = Path.join(snapshot, file.name),
             nil <- HubCache.fault(path),
             {:ok, %File.Stat{size: size}} <- File.stat(path) do
          {file, size}
        else
          _not_here -> {file, nil}
        end
      end

    folder = with {:ok, folder} <- Locator.find(set, home(options)), do: folder, else: (_error -> nil)

    %{
      model: set.model,
      version: set.version,
      language_pack: set.language_pack,
      repositories: Enum.map(set.sources, & &1.repository),
      folder: folder,
      files: for({file, size} when not is_nil(size) <- found, do: file.as),
      missing: for({file, nil} <- found, not file.optional, do: file.as),
      bytes: for({_file, size} when not is_nil(size) <- found, reduce: 0, do: (sum -> sum + size))
    }
  end

  @doc """
  Finds the folder with all the files of a model. It only looks at files, without the network or other programs.

  Options: those above, and `:checkpoint`, a folder of your own to look at instead of the cache.

  The files of a language pack, and those with `flow: :meanflow`, come from two repositories. Their folder is in the home
  (`Chatterbex.Python.home/1`) and contains links.

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
        nil -> Locator.find(set, home(options))
        folder -> Locator.check_folder(set, folder)
      end
    end
  end

  @doc """
  Fetches the missing files of a model, and returns the folder that has them all.

  If nothing is missing, it makes no requests. An interrupted transfer continues where it stopped. A file is only used if
  its checksum is right. The download ends with the calling process. It sends `[:chatterbex, :model, :download, ...]`
  events: see `Chatterbex.Telemetry`.

  Options: those above, and

    * `:force` - `true` asks the hub even if nothing is missing, and fetches files that the revision has newer or that
      are damaged. Default: `false`.
    * `:on_progress` - a function that the calling process calls with a map, several times a second:
      `:model`, `:status` (of the file: `:fetching`, `:checking`, `:waiting` or `:done`), `:file`, `:repository`,
      `:file_bytes` of `:file_total`, `:bytes` of `:total` (of all files), and `:message`, which says what the download
      waits for, or is `nil`.

  ## Examples

      {:ok, folder} = Chatterbex.ModelFiles.download(:turbo, on_progress: &IO.inspect/1)
  """
  @spec download(atom | String.t(), keyword) :: {:ok, Path.t()} | {:error, Error.t()}
  def download(model, options \\ []) do
    with :ok <- known(options, [:force, :on_progress | @names], [:patience]),
         :ok <- callback(options[:on_progress]),
         {:ok, set} <- Set.fetch(model, options) do
      if options[:force] != true and Locator.complete?(set),
        do: Locator.find(set, home(options)),
        else: fetch(set, options)
    end
  end

  @doc """
  The same as `download/2`, but raises the error and prints its progress to stderr, for `eval` in a release.

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
  Checks that a model's files are intact: their form, and their checksums if the cache knows them.

  It reads all of them, some gigabytes. Options: those above, and `:checkpoint`, a folder of your own.

  If files are damaged, the error has the reason `:model_load_failed`, and its details name them in `:files`. `download/2`
  with `force: true` fetches them again.

  ## Examples

      iex> {:error, error} = Chatterbex.ModelFiles.verify(:turbo, checkpoint: "/nowhere")
      iex> error.reason
      :model_files_missing

      {:ok, files} = Chatterbex.ModelFiles.verify(:turbo)
  """
  @spec verify(atom | String.t(), keyword) :: {:ok, [checked]} | {:error, Error.t()}
  def verify(model, options \\ []) do
    with :ok <- known(options, [:checkpoint | @names]),
         {:ok, set} <- Set.fetch(model, options),
         {:ok, files} <- present(set, options[:checkpoint]) do
      files = if set.t3 && is_nil(set.repo), do: [{set.t3, set.t3} | files], else: files
      results = for {name, path} <- files, do: {name, path, Integrity.file(path)}

      case for({name, _path, {:error, fault}} <- results, do: {name, fault}) do
        [] ->
          {:ok,
           for {name, path, {:ok, checksum}} <- results do
             %{file: name, bytes: File.stat!(path).size, checksum: checksum}
           end}

        faults ->
          {:error, damaged(set, faults, options[:checkpoint])}
      end
    end
  end

  # Each file's name and path, in the cache and not in a folder of links, because only the cache has the checksum as name.
  defp present(set, nil) do
    with {:ok, snapshots} <- Locator.snapshots(set) do
      {:ok,
       for {source, snapshot} <- snapshots,
           file <- source.files,
           path = Path.join(snapshot, file.name),
           File.exists?(path) do
         {file.name, path}
       end}
    end
  end

  defp present(set, folder) do
    with {:ok, folder} <- Locator.check_folder(set, folder) do
      {:ok,
       for source <- set.sources,
           file <- source.files,
           path = Path.join(folder, file.as),
           File.exists?(path) do
         {file.as, path}
       end}
    end
  end

  defp damaged(set, faults, checkpoint) do
    listed = Enum.map_join(faults, ", ", fn {name, fault} -> "#{name} #{fault}" end)

    remedy =
      if checkpoint,
        do: "Check the folder given as :checkpoint, #{checkpoint}.",
        else: "Run: #{Set.download_command(set, force: true)}"

    Error.new(:model_load_failed, "files of #{Set.describe(set)} are damaged: #{listed}. #{remedy}", %{
      model: set.model,
      files: Enum.map(faults, &elem(&1, 0))
    })
  end

  @doc """
  Removes a model's files of all revisions from the cache, and returns the removed files and the number of bytes freed.
  Files that another model on this machine needs stay, and so does everything else in the cache.

  Options: `:version`, `:language_pack`, `:flow`, `:repo`, `:t3` and `:home`. For a fine-tune, it only removes the files
  from its repository. It is not an error if there is nothing to remove.

  ## Examples

      {:ok, %{files: _files, bytes: bytes}} = Chatterbex.ModelFiles.remove(:turbo)
  """
  @spec remove(atom | String.t(), keyword) ::
          {:ok, %{files: [Path.t()], bytes: non_neg_integer}} | {:error, Error.t()}
  def remove(model, options \\ []) do
    with :ok <- known(options, @names -- [:revision]),
         {:ok, set} <- Set.fetch(model, options),
         do: Removal.run(set, home(options))
  end

  @doc """
  Returns the path of the Hugging Face cache.

  ## Examples

      iex> Path.type(Chatterbex.ModelFiles.cache_folder())
      :absolute
  """
  @spec cache_folder() :: Path.t()
  def cache_folder, do: HubCache.folder()

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
      with {:ok, done} <- transfer(set, options, report),
           {:ok, folder} <- Locator.find(set, home(options)) do
        {:ok, folder, done, %{folder: folder}}
      end
    end)
  end

  defp transfer(%Set{base: []} = set, options, report) do
    with {:ok, done} <- Download.run(set, options, report), do: {:ok, Map.take(done, [:fetched, :total])}
  end

  # Asking the repository of a fine-tune for all files shows which ones it lacks.
  defp transfer(%Set{sources: [own | _others]} = set, options, report) do
    asked = %{own | files: Enum.map(own.files, &%{&1 | optional: not Set.t3?(&1)})}

    with {:ok, first} <- Download.run(%{set | sources: [asked], base: []}, options, report),
         {:ok, rest} <- rest(%{set | sources: tl(Locator.sources(set)), base: []}, options, report) do
      {:ok, %{fetched: first.fetched + rest.fetched, total: first.total + rest.total}}
    else
      {:error, error} -> {:error, no_such_t3(error, own)}
    end
  end

  defp rest(%Set{sources: []}, _options, _report), do: {:ok, %{fetched: 0, total: 0}}
  defp rest(set, options, report), do: Download.run(set, options, report)

  defp no_such_t3(%Error{details: %{why: :not_found, file: name}} = error, own) do
    if Enum.any?(own.files, &(Set.t3?(&1) and &1.name == name)),
      do: %{error | message: error.message <> " If its T3 has another name, give that as :t3 (--t3)."},
      else: error
  end

  defp no_such_t3(error, _own), do: error

  defp home(options), do: Python.home(home: options[:home])

  defp known(options, names, hidden \\ []) do
    with :ok <- Options.known(options, names, hidden) do
      if is_nil(options[:home]) or is_binary(options[:home]) do
        :ok
      else
        {:error,
         Error.new(
           :invalid_option,
           "option :home must be a string, got #{Options.Schema.show(options[:home])}"
         )}
      end
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
