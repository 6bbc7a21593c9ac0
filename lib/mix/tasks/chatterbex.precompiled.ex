defmodule Mix.Tasks.Chatterbex.Precompiled do
  # Without a @shortdoc: only those who publish Chatterbex need it.

  @moduledoc """
  Packs prebuilt native libraries, and lists their checksums.

      $ mix chatterbex.precompiled pack --target aarch64-apple-darwin --output archives
      $ mix chatterbex.precompiled checksums archives

  `pack` puts the four libraries into an archive, named after this version, the NIF version and the target, and prints
  its path. `checksums` writes `checksum-Elixir.Chatterbex.Native.exs` for all archives in a folder. The package contains
  that file, and `mix compile` reads it.

  ## Options of `pack`

    * `--target TARGET` - what the libraries are built for, as Rust names it (default: this machine)
    * `--libraries DIR` - the folder of the libraries (default `priv/native`)
    * `--output DIR` - the folder for the archive (default: the current folder)
  """

  use Mix.Task

  alias Chatterbex.Native.{Archive, Checksums, Target}

  @switches [target: :string, libraries: :string, output: :string]

  @impl true
  def run(arguments) do
    case OptionParser.parse(arguments, strict: @switches) do
      {options, ["pack"], []} ->
        pack(Map.new(options))

      {[], ["checksums", folder], []} ->
        checksums(folder)

      _other ->
        Mix.raise(
          "usage: mix chatterbex.precompiled pack [options] | checksums DIR. See mix help chatterbex.precompiled"
        )
    end
  end

  defp pack(options) do
    target = options[:target] || Target.detect().name
    name = Archive.name(Mix.Project.config()[:version], target)
    archive = Path.join(options[:output] || ".", name)

    case Archive.pack(options[:libraries] || "priv/native", archive) do
      :ok -> Mix.shell().info(archive)
      {:error, reason} -> Mix.raise(reason)
    end
  end

  defp checksums(folder) do
    case Checksums.write(Checksums.file_name(), folder) do
      {:ok, checksums} -> Mix.shell().info("#{Checksums.file_name()} lists #{map_size(checksums)} archives")
      {:error, reason} -> Mix.raise(reason)
    end
  end
end
