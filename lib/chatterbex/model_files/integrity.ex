defmodule Chatterbex.ModelFiles.Integrity do
  @moduledoc false
  # Whether a file is intact: its checksum, if its name in the cache has one, and its format.

  alias Chatterbex.{JSON, ModelFiles.HubCache}

  @block 1_048_576

  @doc """
  Checks an existing file. Returns the checksum that was compared, `nil` if none is known, or what is wrong.
  """
  @spec file(Path.t()) :: {:ok, :sha256 | :git_sha1 | nil} | {:error, String.t()}
  def file(path) do
    with nil <- HubCache.fault(path),
         nil <- form(Path.extname(path), path) do
      compare(path, checksum(path))
    else
      fault -> {:error, fault}
    end
  end

  # The hub names large files by their SHA-256, others by their SHA-1 in Git.
  defp checksum(path) do
    with {:ok, target} <- File.read_link(path),
         name = Path.basename(target),
         {kind, true} <- {kind(byte_size(name)), name =~ ~r/\A[0-9a-f]+\z/} do
      kind && {kind, name}
    else
      _no_checksum -> nil
    end
  end

  defp kind(64), do: :sha256
  defp kind(40), do: :git_sha1
  defp kind(_other), do: nil

  defp compare(_path, nil), do: {:ok, nil}

  defp compare(path, {kind, expected}) do
    start =
      case kind do
        :sha256 -> :crypto.hash_init(:sha256)
        :git_sha1 -> :crypto.hash_update(:crypto.hash_init(:sha), ["blob #{File.stat!(path).size}", 0])
      end

    found =
      path
      |> File.stream!([], @block)
      |> Enum.reduce(start, &:crypto.hash_update(&2, &1))
      |> :crypto.hash_final()
      |> Base.encode16(case: :lower)

    if found == expected, do: {:ok, kind}, else: {:error, "has the wrong checksum"}
  rescue
    error in [File.Error, IO.StreamError] -> {:error, Exception.message(error)}
  end

  defp form(".safetensors", path) do
    size = File.stat!(path).size

    with {:ok, file} <- File.open(path, [:read, :raw, :binary]),
         {:ok, <<length::little-64>>} <- :file.read(file, 8),
         {:ok, header} <- :file.read(file, length),
         :ok <- File.close(file),
         {:ok, %{} = tensors} <- JSON.decode(header),
         ends = for({name, %{"data_offsets" => [_start, stop]}} <- tensors, name != "__metadata__", do: stop),
         false <- ends == [] or Enum.max(ends) + length + 8 != size do
      nil
    else
      true -> "is cut short, or too long"
      _no_header -> "is not a safetensors file"
    end
  end

  defp form(".json", path) do
    case path |> File.read!() |> JSON.decode() do
      {:ok, _value} -> nil
      {:error, why} -> "is not JSON: #{why}"
    end
  end

  # A zip file, whose last record is at its end, or a bare pickle.
  defp form(".pt", path) do
    size = File.stat!(path).size
    tail = min(size, 65_557)

    with {:ok, file} <- File.open(path, [:read, :raw, :binary]),
         {:ok, [start, tail]} <- :file.pread(file, [{0, 2}, {size - tail, tail}]),
         :ok <- File.close(file) do
      cond do
        start == "PK" and not String.contains?(tail, <<"PK", 5, 6>>) -> "is cut short"
        start == "PK" or String.starts_with?(start, <<0x80>>) -> nil
        true -> "is not a PyTorch file"
      end
    else
      _unreadable -> "cannot be read"
    end
  end

  defp form(_other, _path), do: nil
end
