defmodule Chatterbex.Native.Precompiled do
  @moduledoc false
  # Puts the libraries of an archive into a folder. The archive comes from the cache, or else from the release's page
  # or a mirror. Wherever it comes from, its SHA-256 must be the one in the package.

  alias Chatterbex.Files.Replacement
  alias Chatterbex.Native.{Archive, Checksums, Download}

  # An archive takes about 3 MB.
  @max 50_000_000

  @typedoc """
  `url` is the folder that archives are fetched from, `cache` the one that they are kept in, and `env` the variables
  that `Chatterbex.Native.Download` reads.
  """
  @type options :: %{
          required(:url) => String.t(),
          required(:cache) => Path.t(),
          required(:env) => %{String.t() => String.t()},
          optional(atom) => term
        }

  @doc """
  The options that the environment asks for.
  """
  @spec options(String.t(), %{String.t() => String.t()}) :: options
  def options(default_url, env) do
    url =
      if env["CHATTERBEX_PRECOMPILED_URL"] in [nil, ""],
        do: default_url,
        else: env["CHATTERBEX_PRECOMPILED_URL"]

    %{url: url, cache: cache(env), env: env}
  end

  # The places that rustler_precompiled has, so that a machine needs one folder for all packages.
  defp cache(env) do
    case env["RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH"] do
      path when path in [nil, ""] ->
        options = if env["MIX_XDG"], do: %{os: :linux}, else: %{}
        :filename.basedir(:user_cache, "rustler_precompiled/precompiled_nifs", options) |> to_string()

      path ->
        path
    end
  end

  @doc """
  Puts the libraries of `archive` into `folder`. The error is a sentence without its end.
  """
  @spec install(Checksums.archive(), Path.t(), options) :: :ok | {:error, String.t()}
  def install(archive, folder, options) do
    with {:ok, content} <- obtain(archive, options),
         {:ok, libraries} <- unpack(archive, content),
         do: put(libraries, folder)
  end

  defp obtain(archive, options) do
    cached = Path.join(options.cache, archive.name)

    with {:error, cached_reason} <- read(cached, archive) do
      url = String.trim_trailing(options.url, "/") <> "/" <> archive.name
      Mix.shell().info("Fetching the native libraries from #{shown(options.url)}")

      case fetch(url, archive, options) do
        {:ok, content} ->
          keep(cached, content)
          {:ok, content}

        {:error, reason} ->
          {:error, "cannot fetch #{shown(url)}: #{reason}#{cached_reason}"}
      end
    end
  end

  # With the file open, its size cannot change between a look and the reading of it.
  defp read(path, archive) do
    with {:ok, %{size: size}} when size <= @max <- File.stat(path), {:ok, content} <- File.read(path) do
      with {:error, reason} <- verify(content, archive), do: {:error, ". #{path} cannot be used: #{reason}"}
    else
      {:error, :enoent} -> {:error, ""}
      {:error, posix} -> {:error, ". #{path} cannot be read: #{:file.format_error(posix)}"}
      {:ok, _large} -> {:error, ". #{path} cannot be used: it is larger than #{@max} bytes"}
    end
  end

  defp fetch(url, archive, options) do
    case URI.parse(url) do
      %URI{scheme: scheme, host: host} when scheme in ["http", "https"] and host not in [nil, ""] ->
        with {:ok, content} <- Download.get(url, Map.put(options, :max, @max)), do: verify(content, archive)

      _other ->
        {:error,
         "CHATTERBEX_PRECOMPILED_URL must begin with https:// or http://. To use archives in a folder, " <>
           "set RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH to it"}
    end
  end

  defp verify(content, archive) do
    case Checksums.sha256(content) do
      sha256 when sha256 == archive.sha256 -> {:ok, content}
      sha256 -> {:error, "its SHA-256 is #{sha256}, but this version of Chatterbex expects #{archive.sha256}"}
    end
  end

  # Without a cache, only the next compilation takes longer.
  defp keep(path, content) do
    with :ok <- File.mkdir_p(Path.dirname(path)), do: Replacement.write(path, content)
  end

  defp unpack(archive, content) do
    with {:error, reason} <- Archive.unpack(content),
         do: {:error, "#{archive.name} cannot be unpacked: #{reason}"}
  end

  defp put(libraries, folder) do
    File.mkdir_p!(folder)

    Enum.reduce_while(libraries, :ok, fn {name, content}, :ok ->
      case put_one(Path.join(folder, name), content) do
        :ok ->
          {:cont, :ok}

        {:error, posix} ->
          {:halt, {:error, "cannot put #{name} into #{folder}: #{:file.format_error(posix)}"}}
      end
    end)
  end

  @doc """
  Replaces a library. A running VM may have the old one mapped, so its file is never written to.
  """
  @spec put_one(Path.t(), binary) :: :ok | {:error, File.posix()}
  def put_one(path, content) do
    if File.read(path) == {:ok, content}, do: :ok, else: Replacement.write(path, content)
  end

  # A mirror's address may hold a password.
  defp shown(url) do
    uri = URI.parse(url)
    if uri.userinfo, do: URI.to_string(%{uri | userinfo: "***"}), else: url
  end
end
