defmodule Chatterbex.Files do
  @moduledoc false
  # Files whose paths come from users: paths are checked, errors say what to do, and files appear whole or not at all.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Files.Replacement

  @piece 1_048_576

  @spec read(term) :: {:ok, binary} | {:error, Error.t()}
  def read(path) do
    with {:ok, path} <- path(path),
         {:error, posix} <- File.read(path),
         do: {:error, error("read", path, posix)}
  end

  @doc """
  Reads a file of at most `max` bytes. The limit holds for devices and pipes too, which have no size.
  """
  @spec read(term, pos_integer) :: {:ok, binary} | {:error, Error.t()}
  def read(path, max) do
    with {:ok, path} <- path(path), {:ok, device} <- open("read", path, [:read]) do
      try do
        read(device, path, max, [], 0)
      after
        :file.close(device)
      end
    end
  end

  defp read(device, path, max, pieces, size) do
    case :file.read(device, @piece) do
      {:ok, piece} when size + byte_size(piece) > max -> {:error, too_large(path, max)}
      {:ok, piece} -> read(device, path, max, [pieces, piece], size + byte_size(piece))
      :eof -> {:ok, IO.iodata_to_binary(pieces)}
      {:error, posix} -> {:error, error("read", path, posix)}
    end
  end

  @doc """
  The error for a file or binary that is larger than `max` bytes.
  """
  @spec too_large(String.t(), pos_integer) :: Error.t()
  def too_large(what, max) do
    Error.new(
      :invalid_audio,
      "#{what} is larger than #{max} bytes. Cut it, or allow more with the option :max_bytes.",
      %{max_bytes: max}
    )
  end

  @doc """
  Opens a file in raw binary mode.
  """
  @spec open(String.t(), String.t(), list) :: {:ok, :file.fd()} | {:error, Error.t()}
  def open(verb, path, modes) do
    with {:error, posix} <- :file.open(path, [:raw, :binary | modes]), do: {:error, error(verb, path, posix)}
  end

  @spec write(term, iodata) :: :ok | {:error, Error.t()}
  def write(path, content) do
    with {:ok, path} <- path(path),
         {:error, posix} <- put(path, content),
         do: {:error, error("write", path, posix)}
  end

  @doc """
  Writes a new file. If the file exists, the error has `:eexist`.
  """
  @spec write_new(Path.t(), iodata) :: :ok | {:error, Error.t()}
  def write_new(path, content) do
    with {:error, posix} <- Replacement.write_new(path, content), do: {:error, error("write", path, posix)}
  end

  @doc """
  A path as a string.
  """
  @spec path(term) :: {:ok, Path.t()} | {:error, Error.t()}
  def path(path) when is_binary(path) or is_list(path) do
    path = IO.chardata_to_string(path)

    if path == "" or String.contains?(path, <<0>>),
      do: {:error, Error.new(:file_error, "#{inspect(path)} is not a file path")},
      else: {:ok, path}
  rescue
    _not_chardata -> {:error, Error.new(:file_error, "#{Options.Schema.show(path)} is not a file path")}
  end

  def path(path), do: {:error, Error.new(:file_error, "#{Options.Schema.show(path)} is not a file path")}

  # A device or a pipe cannot be replaced, so write to it directly.
  defp put(path, content) do
    case File.stat(path) do
      {:ok, %{type: type}} when type != :regular -> File.write(path, content)
      _regular_or_missing -> Replacement.write(path, content)
    end
  end

  @doc """
  The error for a POSIX error of the system.
  """
  @spec error(String.t(), String.t(), atom) :: Error.t()
  def error(verb, path, posix) do
    Error.new(
      :file_error,
      "cannot #{verb} #{path}: #{:file.format_error(posix)} (#{posix}).#{hint(verb, posix)}",
      %{path: path, posix: posix}
    )
  end

  defp hint("write", :enoent), do: " Make its folder first."
  defp hint("write", :enospc), do: " Free some space or write elsewhere."
  defp hint(_verb, :eisdir), do: " Give the name of a file, not of a folder."
  defp hint(_verb, :eacces), do: " Check who owns it and who may use it."
  defp hint(_verb, _posix), do: ""
end
