defmodule Chatterbex.Setup.EnvironmentManifest do
  @moduledoc false
  # The file that lists the contents of an environment. It is written last, in one step: if it exists, the environment is
  # complete.

  alias Chatterbex.{Files.Replacement, JSON}

  @version 1

  @type t :: %{required(String.t()) => term}

  @doc "Reads and checks the manifest of an environment."
  @spec read(Path.t()) :: {:ok, t} | {:error, :missing | :older | :newer | {:invalid, String.t()}}
  def read(venv) do
    with {:ok, text} <- File.read(path(venv)),
         {:ok, manifest} <- JSON.decode(text) do
      check(manifest)
    else
      {:error, reason} when reason in [:enoent, :enotdir] -> {:error, :missing}
      {:error, reason} when is_atom(reason) -> {:error, {:invalid, to_string(:file.format_error(reason))}}
      {:error, message} -> {:error, {:invalid, message}}
    end
  end

  @doc "Writes the manifest in one step, and removes the marker of a running installation."
  @spec write(Path.t(), map) :: :ok | {:error, File.posix()}
  def write(venv, manifest) do
    text = JSON.encode(Map.put(manifest, "manifest", @version)) <> "\n"

    with :ok <- Replacement.write(path(venv), text, sync: true) do
      _gone_already = File.rm(marker(venv))
      :ok
    end
  end

  @doc "Creates the folder of an environment, with the marker of a running installation."
  @spec begin(Path.t()) :: :ok | {:error, File.posix()}
  def begin(venv) do
    with :ok <- File.mkdir_p(venv),
         do: File.write(marker(venv), "A setup is running here, or was interrupted. Run it again.\n")
  end

  @doc "Whether an installation is running, or was interrupted."
  @spec begun?(Path.t()) :: boolean
  def begun?(venv), do: File.exists?(marker(venv))

  @doc "Whether the setup created the folder. It never changes or removes any other."
  @spec ours?(Path.t()) :: boolean
  def ours?(venv), do: File.exists?(path(venv)) or begun?(venv)

  @doc "The path of the manifest of an environment."
  @spec path(Path.t()) :: Path.t()
  def path(venv), do: Path.join(venv, "chatterbex.json")

  defp marker(venv), do: Path.join(venv, "chatterbex.installing")

  defp check(%{"manifest" => version}) when is_integer(version) and version < @version, do: {:error, :older}
  defp check(%{"manifest" => version}) when is_integer(version) and version > @version, do: {:error, :newer}

  defp check(
         %{
           "manifest" => @version,
           "python" => %{"version" => version, "base_executable" => base},
           "libpython" => libpython,
           "profiles" => %{} = profiles,
           "packages" => %{}
         } = manifest
       )
       when is_binary(version) and is_binary(base) and is_binary(libpython) do
    if Enum.all?(profiles, &match?({_name, %{"lock_sha256" => sha}} when is_binary(sha), &1)),
      do: {:ok, manifest},
      else: {:error, {:invalid, "a profile without lock_sha256"}}
  end

  defp check(_other), do: {:error, {:invalid, "fields are missing"}}
end
