defmodule Chatterbex.Files.Replacement do
  @moduledoc false
  # A file that appears complete or not at all: it is written in the same folder, and moved to its place when it is
  # done.
  #
  # It keeps the mode of the file that it replaces. A symbolic link stays, and its target is replaced.

  import Bitwise

  # The number of links that are followed, as in the kernel.
  @max_links 40

  @enforce_keys [:path, :part, :file]
  defstruct @enforce_keys

  @typedoc "`path` is the place, `part` where it is written, `file` is open for writing."
  @type t :: %__MODULE__{path: Path.t(), part: Path.t(), file: :file.fd()}

  @doc """
  A name that nobody else uses, in any container. Create it in a way that fails if it exists.
  """
  @spec unique(String.t()) :: String.t()
  def unique(prefix), do: "#{prefix}.#{8 |> :crypto.strong_rand_bytes() |> Base.encode16(case: :lower)}"

  @doc """
  Opens the file that is to replace `path`.
  """
  @spec open(Path.t()) :: {:ok, t} | {:error, File.posix()}
  def open(path) do
    with {:ok, path} <- follow(path, @max_links),
         part = unique(path) <> ".part",
         {:ok, file} <- :file.open(part, [:raw, :binary, :write, :exclusive]) do
      replacement = %__MODULE__{path: path, part: part, file: file}

      with :ok <- path |> keep_mode(part) |> or_abort(replacement), do: {:ok, replacement}
    end
  end

  defp follow(_path, 0), do: {:error, :eloop}

  # The kernel resolves `..` in a link, so it is left as it is.
  defp follow(path, links) do
    case File.read_link(path) do
      {:ok, to} ->
        to = if Path.type(to) == :absolute, do: to, else: Path.join(Path.dirname(path), to)
        follow(to, links - 1)

      {:error, _no_link} ->
        {:ok, path}
    end
  end

  # Set before the file has contents that others may not read. Some file systems have no modes.
  defp keep_mode(path, part) do
    with {:ok, %{mode: mode}} <- File.stat(path),
         {:error, posix} when posix not in [:eperm, :enotsup] <- File.chmod(part, mode &&& 0o7777) do
      {:error, posix}
    else
      _kept_or_new -> :ok
    end
  end

  @doc """
  Moves the file to its place. If that fails, the file is removed.
  """
  @spec commit(t) :: :ok | {:error, File.posix()}
  def commit(%__MODULE__{} = replacement) do
    result = with :ok <- :file.close(replacement.file), do: File.rename(replacement.part, replacement.path)

    or_abort(result, replacement)
  end

  @doc """
  Removes the file, unless it has already been moved to its place.
  """
  @spec abort(t) :: :ok
  def abort(%__MODULE__{} = replacement) do
    _closed_or_was = :file.close(replacement.file)
    _removed_or_moved = File.rm(replacement.part)
    :ok
  end

  @doc """
  Replaces a file by one with this content. With `sync: true` it is on the disk before it is in its place.
  """
  @spec write(Path.t(), iodata, keyword) :: :ok | {:error, File.posix()}
  def write(path, content, options \\ []) do
    with {:ok, replacement} <- open(path) do
      with :ok <- replacement |> fill(content, options[:sync]) |> or_abort(replacement),
           do: commit(replacement)
    end
  end

  @doc """
  Writes a file that must not be there yet: of several writers at once, one succeeds.
  """
  @spec write_new(Path.t(), iodata) :: :ok | {:error, File.posix()}
  def write_new(path, content) do
    with {:ok, replacement} <- open(path) do
      # A hard link, which unlike a move never replaces a file.
      result = with :ok <- fill(replacement, content, true), do: File.ln(replacement.part, replacement.path)

      abort(replacement)
      result
    end
  end

  defp fill(replacement, content, sync) do
    with :ok <- :file.write(replacement.file, content),
         do: if(sync, do: :file.sync(replacement.file), else: :ok)
  end

  defp or_abort(:ok, _replacement), do: :ok

  defp or_abort({:error, posix}, replacement) do
    abort(replacement)
    {:error, posix}
  end
end
