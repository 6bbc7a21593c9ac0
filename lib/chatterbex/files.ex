defmodule Chatterbex.Files do
  @moduledoc false
  # Files as users give them: paths are checked, errors say what to do, and what is written appears whole or not at all.

  alias Chatterbex.{Error, Options}

  @spec read(term) :: {:ok, binary} | {:error, Error.t()}
  def read(path) do
    with {:ok, path} <- path(path),
         {:error, posix} <- File.read(path),
         do: {:error, error("read", path, posix)}
  end

  @spec write(term, iodata) :: :ok | {:error, Error.t()}
  def write(path, content) do
    with {:ok, path} <- path(path),
         {:error, posix} <- put(path, content),
         do: {:error, error("write", path, posix)}
  end

  @doc """
  A path as a string.
  """
  @spec path(term) :: {:ok, Path.t()} | {:error, Error.t()}
  def path(path) when is_binary(path) or is_list(path) do
    path = IO.chardata_to_string(path)

    if path == "" or String.contains?(path, <<0>>),
      do: {:error, Error.new(:file_error, "#{inspect(path)} is no path of a file")},
      else: {:ok, path}
  rescue
    _not_chardata -> {:error, Error.new(:file_error, "#{Options.Schema.show(path)} is no path of a file")}
  end

  def path(path), do: {:error, Error.new(:file_error, "#{Options.Schema.show(path)} is no path of a file")}

  # A device or a pipe cannot be replaced: it is written to as it is.
  defp put(path, content) do
    case File.stat(path) do
      {:ok, %{type: type}} when type != :regular -> File.write(path, content)
      _regular_or_missing -> replace(path, content)
    end
  end

  defp replace(path, content) do
    beside = "#{path}.#{System.pid()}-#{System.unique_integer([:positive])}.part"

    with :ok <- File.write(beside, content), :ok <- File.rename(beside, path) do
      :ok
    else
      {:error, posix} ->
        File.rm(beside)
        {:error, posix}
    end
  end

  defp error(verb, path, posix) do
    Error.new(
      :file_error,
      "cannot #{verb} #{path}: #{:file.format_error(posix)} (#{posix}).#{hint(verb, posix)}",
      %{path: path, posix: posix}
    )
  end

  defp hint("write", :enoent), do: " Make its folder first."
  defp hint("write", :enospc), do: " Free some space or write elsewhere."
  defp hint("write", :eisdir), do: " Give the name of a file, not of a folder."
  defp hint(_verb, :eacces), do: " Check who owns it and who may use it."
  defp hint(_verb, _posix), do: ""
end
