defmodule Chatterbex.Server.Loading do
  @moduledoc false
  # Prepares what a model needs before it can be loaded: its files and a Python with its packages.

  alias Chatterbex.{Device, Error, Model, ModelFiles, Precision, Python}
  alias Chatterbex.Server.Engine

  @doc """
  Prepares in a process of its own, linked to the calling one, for files may have to be fetched first. It sends
  `{:prepared, pid, {:ok, folder | nil} | {:error, error}}`, and before that `{:fetching, pid}` where files are fetched.
  """
  @spec prepare(Engine.t(), Model.t(), map) :: pid
  def prepare(engine, model, options) do
    server = self()
    spawn_link(fn -> send(server, {:prepared, self(), ready(engine, model, options, server)}) end)
  end

  defp ready(_engine, _model, %{testing: true}, _server), do: {:ok, nil}

  defp ready(engine, model, options, server) do
    python = %{
      home: options.home,
      threads: options.threads,
      timeout: options.load_timeout,
      profiles: profiles(model)
    }

    # Python first: fetching files takes long and needs it too.
    with {:ok, _python} <- Engine.start_python(engine, python), do: files(model, options, server)
  end

  defp profiles(%Model{profile: "hibari"}), do: ["hibari"]
  defp profiles(%Model{profile: profile}), do: ["hibari", profile]

  defp files(_model, %{checkpoint: folder, t3: nil, repo: nil}, _server) when is_binary(folder),
    do: {:ok, Path.expand(folder)}

  defp files(%Model{profile: "hibari"}, %{t3: nil, repo: nil}, _server), do: {:ok, nil}

  defp files(model, %{checkpoint: folder} = options, _server) when is_binary(folder),
    do: ModelFiles.locate(model.name, [checkpoint: folder] ++ chosen(options))

  defp files(model, options, server) do
    chosen = chosen(options)

    case ModelFiles.locate(model.name, chosen) do
      {:error, %Error{reason: :model_files_missing}} when options.download ->
        send(server, {:fetching, self()})
        ModelFiles.download(model.name, chosen)

      found ->
        found
    end
  end

  defp chosen(options) do
    for name <- [:version, :language_pack, :flow, :repo, :t3, :revision, :home],
        value = options[name],
        do: {name, value}
  end

  @doc """
  The engine's command to load the model.
  """
  @spec command(pos_integer, Model.t(), map, Path.t() | nil) :: map
  def command(id, model, options, folder) do
    own = Map.new(options.model_options, fn {name, value} -> {Atom.to_string(name), value} end)

    load_options =
      Map.merge(own, %{
        "device" => Device.to_string(options.device),
        "fallback" => options.fallback,
        "threads" => options.threads,
        "max_batch" => options.max_batch,
        "max_voices" => options.max_voices,
        "precision" => Atom.to_string(options.precision),
        "cache" => Precision.folder(Python.home(home: options.home)),
        "checkpoint" => folder,
        "version" => options.version && Atom.to_string(options.version),
        "pack" => options.language_pack,
        "flow" => options.flow && Atom.to_string(options.flow),
        "flow_steps" => options.flow_steps,
        "first_chunk_steps" => options.first_chunk_steps,
        "reference_seconds" => options.reference_seconds,
        # With a repository it is the name of a file that is in the folder.
        "t3" => if(options.t3 && is_nil(options.repo), do: Path.expand(options.t3)),
        "repo" => options.repo
      })

    %{"op" => "load", "id" => id, "model" => Atom.to_string(model.name), "options" => load_options}
  end
end
