defmodule Chatterbex.ModelFiles.HubCache do
  @moduledoc false
  # The user's Hugging Face hub cache, as huggingface_hub lays it out:
  #
  #     models--owner--name/refs/main               holds a commit
  #     models--owner--name/snapshots/COMMIT/file   links to
  #     models--owner--name/blobs/CHECKSUM
  #
  # This code only reads it, except for the files that `remove` deletes.

  @doc """
  The cache's folder.
  """
  @spec folder() :: Path.t()
  def folder do
    (path_variable("HF_HUB_CACHE") || path_variable("HUGGINGFACE_HUB_CACHE") || Path.join(home(), "hub"))
    |> Path.expand()
  end

  defp home do
    path_variable("HF_HOME") ||
      Path.join(
        path_variable("XDG_CACHE_HOME") || Path.join(System.user_home() || "/", ".cache"),
        "huggingface"
      )
  end

  # As Python's expanduser and expandvars do.
  defp path_variable(name) do
    case System.get_env(name, "") do
      "" ->
        nil

      path ->
        Regex.replace(~r/\$(?:(\w+)|\{(\w+)\})/, path, fn whole, plain, braced ->
          System.get_env(plain <> braced, whole)
        end)
    end
  end

  @doc """
  The folder of a repository.
  """
  @spec repository(String.t()) :: Path.t()
  def repository(name), do: Path.join(folder(), "models--" <> String.replace(name, "/", "--"))

  @doc """
  The folder with the files of a revision, if the cache knows it.
  """
  @spec snapshot(String.t(), String.t()) :: {:ok, Path.t()} | :error
  def snapshot(repository, revision) do
    folder = repository(repository)

    commit =
      case File.read(Path.join([folder, "refs", revision])) do
        {:ok, commit} -> String.trim(commit)
        {:error, _no_such_name} -> revision
      end

    snapshot = Path.join([folder, "snapshots", commit])
    if commit =~ ~r/\A\w+\z/ and File.dir?(snapshot), do: {:ok, snapshot}, else: :error
  end

  @doc """
  Why a file cannot be used; `nil` if it can.
  """
  @spec fault(Path.t()) :: String.t() | nil
  def fault(path) do
    case File.stat(path) do
      {:ok, %File.Stat{type: :regular, size: 0}} -> "is empty"
      {:ok, %File.Stat{type: :regular, access: access}} when access in [:read, :read_write] -> header(path)
      {:ok, %File.Stat{type: :regular}} -> "cannot be read"
      {:ok, %File.Stat{}} -> "is not a file"
      {:error, :enoent} -> "is missing"
      {:error, reason} -> "cannot be read (#{:file.format_error(reason)})"
    end
  end

  # The first eight bytes of such a file are the size of its header, so a file truncated within the header shows at once.
  defp header(path) do
    with ".safetensors" <- Path.extname(path),
         {:ok, %File.Stat{size: size}} <- File.stat(path),
         {:ok, start} <- File.open(path, [:read, :raw, :binary], &:file.read(&1, 8)) do
      case start do
        {:ok, <<header::little-64>>} when header >= 2 and header + 8 <= size -> nil
        _other -> "is cut short"
      end
    else
      _other_kind -> nil
    end
  end

  @doc """
  Whether part of a file of the repository has been downloaded.
  """
  @spec part?(String.t()) :: boolean
  def part?(repository),
    do: :filelib.wildcard(~c"blobs/*.incomplete", to_charlist(repository(repository))) != []

  @doc """
  Whether the hub reported that this snapshot has no such file.
  """
  @spec known_absent?(String.t(), Path.t(), String.t()) :: boolean
  def known_absent?(repository, snapshot, name),
    do: File.exists?(Path.join([repository(repository), ".no_exist", Path.basename(snapshot), name]))
end
