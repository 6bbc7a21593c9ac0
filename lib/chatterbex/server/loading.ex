defmodule Chatterbex.Server.Loading do
  @moduledoc false
  # What must be there before a model can be loaded: its files and a Python with its packages.

  alias Chatterbex.{Device, Error, Model, ModelFiles, Runtime}

  @doc """
  Prepares in a process of its own, linked to the calling one, for files may have to be fetched first. It sends
  `{:prepared, pid, {:ok, folder | nil} | {:error, error}}`.
  """
  @spec prepare(Model.t(), map) :: pid
  def prepare(model, options) do
    server = self()
    spawn_link(fn -> send(server, {:prepared, self(), ready(model, options)}) end)
  end

  defp ready(model, options) do
    python = %{
      home: options.home,
      threads: options.threads,
      timeout: options.load_timeout,
      profiles: profiles(model)
    }

    # Python first: fetching files takes long and needs it too.
    with {:ok, _python} <- Runtime.start_python(python), do: files(model, options)
  end

  defp profiles(%Model{profile: "hibari"}), do: ["hibari"]
  defp profiles(%Model{profile: profile}), do: ["hibari", profile]

  defp files(_model, %{checkpoint: folder}) when is_binary(folder), do: {:ok, Path.expand(folder)}
  defp files(%Model{profile: "hibari"}, _options), do: {:ok, nil}

  defp files(model, options) do
    chosen =
      for name <- [:version, :language_pack, :revision, :home], value = options[name], do: {name, value}

    case ModelFiles.locate(model.name, chosen) do
      {:error, %Error{reason: :model_files_missing}} when options.download ->
        ModelFiles.download(model.name, chosen)

      found ->
        found
    end
  end

  @doc """
  The engine's command to load the model.
  """
  @spec command(pos_integer, Model.t(), map, Path.t() | nil) :: map
  def command(id, model, options, folder) do
    load_options =
      Map.merge(options.model_options, %{
        "device" => Device.to_string(options.device),
        "fallback" => options.fallback,
        "threads" => options.threads,
        "max_batch" => options.max_batch,
        "max_voices" => options.max_voices,
        "checkpoint" => folder,
        "version" => options.version && Atom.to_string(options.version),
        "pack" => options.language_pack
      })

    %{"op" => "load", "id" => id, "model" => Atom.to_string(model.name), "options" => load_options}
  end
end
