defmodule Chatterbex.Native.Checksums do
  @moduledoc false
  # The file of a package that says which archives there are, with their SHA-256. It has the form that
  # rustler_precompiled gives it: a map from file names to "sha256:HEX". A checkout of the repository has none.

  alias Chatterbex.Native.Archive

  @file_name "checksum-Elixir.Chatterbex.Native.exs"

  @type t :: %{String.t() => String.t()}
  @type archive :: %{name: String.t(), sha256: String.t()}

  @spec file_name() :: String.t()
  def file_name, do: @file_name

  @doc """
  Reads the file. Without one, there are no archives.
  """
  @spec read(Path.t()) :: {:ok, t} | {:error, String.t()}
  def read(path) do
    case File.read(path) do
      {:ok, text} -> parse(text, path)
      {:error, :enoent} -> {:ok, %{}}
      {:error, posix} -> {:error, "cannot read #{path}: #{:file.format_error(posix)}"}
    end
  end

  # The file is read as data. Nothing in it is run.
  defp parse(text, path) do
    with {:ok, {:%{}, _, entries}} <- Code.string_to_quoted(text),
         true <- Enum.all?(entries, &entry?/1) do
      {:ok, Map.new(entries, fn {name, "sha256:" <> hash} -> {name, hash} end)}
    else
      _other -> {:error, "#{path} is not a list of checksums. Fetch the package again."}
    end
  end

  defp entry?({name, "sha256:" <> hash}) when is_binary(name), do: hash =~ ~r/^[0-9a-f]{64}$/
  defp entry?(_other), do: false

  @doc """
  Writes the checksums of all archives in a folder.
  """
  @spec write(Path.t(), Path.t()) :: {:ok, t} | {:error, String.t()}
  def write(path, folder) do
    archives = folder |> Path.join("libchatterbex-*.tar.gz") |> Path.wildcard() |> Enum.sort()
    checksums = Map.new(archives, &{Path.basename(&1), sha256(File.read!(&1))})
    lines = for archive <- archives, name = Path.basename(archive), do: line(name, checksums[name])

    case File.write(path, ["%{\n", Enum.intersperse(lines, ",\n"), "\n}\n"]) do
      :ok when archives == [] -> {:error, "there is no archive in #{folder}"}
      :ok -> {:ok, checksums}
      {:error, posix} -> {:error, "cannot write #{path}: #{:file.format_error(posix)}"}
    end
  end

  defp line(name, sha256), do: ["  ", inspect(name), " => ", inspect("sha256:" <> sha256)]

  @spec sha256(iodata) :: String.t()
  def sha256(content), do: :sha256 |> :crypto.hash(content) |> Base.encode16(case: :lower)

  @doc """
  The archive for a version, a target and a VM's NIF version.

  `:unreleased` means that the file knows no archive of this version: it is a development version.
  """
  @spec select(t, String.t(), String.t(), String.t()) ::
          {:ok, archive} | :unreleased | {:error, {:target | :nif_version, [String.t()]}}
  def select(checksums, version, target, nif_version) do
    all =
      for {name, sha256} <- checksums, {:ok, for} <- [Archive.parse(name, version)], do: {for, name, sha256}

    ours = for {{nif, ^target}, name, sha256} <- all, do: {number(nif), name, sha256}
    [major, minor] = number(nif_version)

    case Enum.filter(ours, &match?({[^major, built], _, _} when built <= minor, &1)) do
      [_ | _] = loadable ->
        {_nif, name, sha256} = Enum.max(loadable)
        {:ok, %{name: name, sha256: sha256}}

      [] when all == [] ->
        :unreleased

      [] when ours == [] ->
        {:error, {:target, Enum.sort(Enum.uniq(for {{_nif, target}, _, _} <- all, do: target))}}

      [] ->
        {:error, {:nif_version, Enum.sort(for {[major, minor], _, _} <- ours, do: "#{major}.#{minor}")}}
    end
  end

  defp number(nif_version), do: nif_version |> String.split(".") |> Enum.map(&String.to_integer/1)
end
