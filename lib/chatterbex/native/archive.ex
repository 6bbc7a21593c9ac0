defmodule Chatterbex.Native.Archive do
  @moduledoc false
  # An archive with the native libraries of one target: a gzipped tar file, named as rustler_precompiled names its own.

  alias Chatterbex.Native.Library

  # The NIF version that the libraries are built for, which is that of OTP 22. Later VMs load them too.
  @nif_version "2.15"

  # The libraries of a target together take a tenth of this.
  @max_unpacked 100_000_000

  @doc """
  The file name of the archive for a version and a target.
  """
  @spec name(String.t(), String.t(), String.t()) :: String.t()
  def name(version, target, nif_version \\ @nif_version),
    do: "#{prefix(version)}#{nif_version}-#{target}.so.tar.gz"

  @doc """
  The NIF version and the target that a file name is for; `:error` if it is not an archive of this version.
  """
  @spec parse(String.t(), String.t()) :: {:ok, {String.t(), String.t()}} | :error
  def parse(name, version) do
    with true <- String.starts_with?(name, prefix(version)),
         rest = String.replace_prefix(name, prefix(version), ""),
         [_, nif_version, target] <- Regex.run(~r/^(\d+\.\d+)-([\w-]+)\.so\.tar\.gz$/, rest) do
      {:ok, {nif_version, target}}
    else
      _other -> :error
    end
  end

  defp prefix(version), do: "libchatterbex-v#{version}-nif-"

  @doc """
  Packs the libraries in a folder. The same libraries give the same bytes.
  """
  @spec pack(Path.t(), Path.t()) :: :ok | {:error, String.t()}
  def pack(folder, archive) do
    tar = archive <> ".tar"

    with {:ok, libraries} <- read(folder),
         :ok <- File.mkdir_p(Path.dirname(archive)),
         :ok <- write_tar(tar, libraries),
         {:ok, content} <- File.read(tar),
         :ok <- File.write(archive, :zlib.gzip(content)) do
      :ok
    else
      {:error, {:missing, file}} -> {:error, "#{file} is missing"}
      {:error, reason} -> {:error, "cannot write #{archive}: #{:erl_tar.format_error(reason)}"}
    end
  after
    File.rm(archive <> ".tar")
  end

  defp read(folder) do
    Enum.reduce_while(Library.files(), {:ok, []}, fn name, {:ok, libraries} ->
      case File.read(Path.join(folder, name)) do
        {:ok, content} -> {:cont, {:ok, libraries ++ [{name, content}]}}
        {:error, _posix} -> {:halt, {:error, {:missing, Path.join(folder, name)}}}
      end
    end)
  end

  defp write_tar(path, libraries) do
    with {:ok, tar} <- :erl_tar.open(path, [:write]) do
      options = [atime: 0, mtime: 0, ctime: 0, uid: 0, gid: 0]
      for {name, content} <- libraries, do: :ok = :erl_tar.add(tar, content, to_charlist(name), options)
      :erl_tar.close(tar)
    end
  end

  @doc """
  Unpacks an archive in memory. It must hold exactly the libraries, as regular files, and no other path.
  """
  @spec unpack(binary) :: {:ok, [{String.t(), binary}]} | {:error, String.t()}
  def unpack(archive) do
    with {:ok, tar} <- gunzip(archive),
         {:ok, entries} <- entries(tar),
         :ok <- check(entries),
         {:ok, libraries} <- :erl_tar.extract({:binary, tar}, [:memory]) do
      {:ok, for({name, content} <- libraries, do: {to_string(name), content})}
    else
      {:error, message} when is_binary(message) -> {:error, message}
      {:error, _reason} -> {:error, "it is damaged"}
    end
  end

  defp entries(tar) do
    with {:ok, entries} <- :erl_tar.table({:binary, tar}, [:verbose]),
         do: {:ok, for(entry <- entries, do: {to_string(elem(entry, 0)), elem(entry, 1)})}
  end

  defp check(entries) do
    expected = for name <- Library.files(), do: {name, :regular}

    case {Enum.sort(entries) -- expected, expected -- entries} do
      {[], []} -> :ok
      {[{name, type} | _], _} -> {:error, "it holds #{inspect(name)} (#{type}), which does not belong there"}
      {[], [{name, _} | _]} -> {:error, "it lacks #{name}"}
    end
  end

  # A small archive may claim to unpack to any size.
  defp gunzip(archive) do
    z = :zlib.open()

    try do
      :ok = :zlib.inflateInit(z, 31)
      inflate(z, :zlib.safeInflate(z, archive), [], 0)
    rescue
      ErlangError -> {:error, "it is damaged"}
    after
      :zlib.close(z)
    end
  end

  defp inflate(z, {state, piece}, pieces, size) do
    pieces = [pieces, piece]
    size = size + IO.iodata_length(piece)

    cond do
      size > @max_unpacked ->
        {:error, "it unpacks to more than #{@max_unpacked} bytes"}

      state == :continue ->
        inflate(z, :zlib.safeInflate(z, []), pieces, size)

      true ->
        # Raises where the archive ends too early.
        :ok = :zlib.inflateEnd(z)
        {:ok, IO.iodata_to_binary(pieces)}
    end
  end
end
