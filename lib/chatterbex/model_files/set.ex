defmodule Chatterbex.ModelFiles.Set do
  @moduledoc false
  # The files of one model: their repositories and their names. The table is a file that Python reads too.
  #
  # The files of a fine-tune are its T3, a file of the user's or in a repository, and those of the model that it was
  # made from. A repository may have any of these itself; `base` are the sources of the files that it lacks.

  alias Chatterbex.{Error, JSON, Model, Options}

  @table Path.expand("../../../priv/python/chatterbex/model_files.json", __DIR__)
  @external_resource @table

  @sets @table |> File.read!() |> JSON.decode() |> elem(1)

  @models [:english, :multilingual, :turbo, :nano, :conversion]
  @versions [:v3, :v2]
  # The models whose flow can be replaced.
  @flows [:english, :multilingual, :conversion]
  @packs ~w(zh-cmn es-mx-latam pt-br es-es pt-pt hi)

  @enforce_keys [:model, :sources]
  defstruct [:model, :version, :language_pack, :flow, :repo, :t3, :sources, base: []]

  @typedoc """
  A file has its `name` in the repository, and the one that it is loaded `as`; a model loads without one that is
  `optional`.
  """
  @type file :: %{name: String.t(), as: String.t(), optional: boolean}

  @type source :: %{repository: String.t(), revision: String.t(), files: [file, ...]}

  @type t :: %__MODULE__{
          model: atom,
          version: :v2 | :v3 | nil,
          language_pack: String.t() | nil,
          flow: :meanflow | nil,
          repo: String.t() | nil,
          t3: Path.t() | String.t() | nil,
          sources: [source, ...],
          base: [source]
        }

  @doc """
  The models that have files, in the order of their documentation.
  """
  @spec models() :: [atom]
  def models, do: @models

  @doc """
  All sets.
  """
  @spec all() :: [t]
  def all do
    Enum.flat_map(@models, fn
      :multilingual ->
        Enum.map(@versions, &make(:multilingual, &1, nil, nil)) ++
          Enum.map(@packs, &make(:multilingual, nil, &1, nil))

      model ->
        [make(model, nil, nil, nil)]
    end)
  end

  @doc """
  The set for a model and options.
  """
  @spec fetch(atom | String.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def fetch(name, options) do
    with {:ok, model} <- model(name),
         {:ok, version} <- version(options[:version], model),
         {:ok, pack} <- pack(options[:language_pack], model, version),
         {:ok, revision} <- revision(options[:revision]),
         {:ok, repo} <- repo(options[:repo], model, pack),
         {:ok, t3} <- t3(options[:t3], model, repo),
         {:ok, flow} <- flow(options[:flow], model) do
      version = if model == :multilingual and is_nil(pack), do: version || :v3
      {:ok, model |> make(version, pack, revision) |> fine_tuned(repo, t3) |> distilled(flow)}
    end
  end

  # The distilled flow is in turbo's file of S3Gen, which stands in for the model's own.
  defp distilled(set, nil), do: set

  defp distilled(set, :meanflow) do
    [turbo] = Enum.map(@sets["turbo"]["sources"], &source/1)
    without = fn source -> %{source | files: Enum.reject(source.files, &s3gen?/1)} end

    %{
      set
      | flow: :meanflow,
        sources: Enum.map(set.sources, without) ++ [%{turbo | files: Enum.filter(turbo.files, &s3gen?/1)}],
        base: Enum.map(set.base, without)
    }
  end

  defp s3gen?(%{as: name}), do: String.starts_with?(name, "s3gen")

  # The file of T3 may have another name in the repository. In the folder it has the name of the model's own.
  defp fine_tuned(%{sources: [main | _others]} = set, repo, t3) when is_binary(repo) do
    files = for file <- main.files, do: if(t3?(file) and t3, do: %{file | name: t3}, else: file)

    base = [%{main | revision: "main", files: Enum.reject(main.files, &t3?/1)}]
    %{set | repo: repo, t3: t3, sources: [%{main | repository: repo, files: files}], base: base}
  end

  # The T3 is not fetched if the user has another one.
  defp fine_tuned(%{sources: [main | others]} = set, nil, t3) when is_binary(t3),
    do: %{set | t3: t3, sources: [%{main | files: Enum.reject(main.files, &t3?/1)} | others]}

  defp fine_tuned(set, nil, nil), do: set

  @doc """
  Whether a file is the T3 of its model.
  """
  @spec t3?(file) :: boolean
  def t3?(%{as: name}), do: String.starts_with?(name, "t3")

  @doc """
  The set in words, as in `:multilingual (language pack hi)`.
  """
  @spec describe(t) :: String.t()
  def describe(%__MODULE__{flow: flow} = set) when not is_nil(flow),
    do: "#{describe(%{set | flow: nil})} (flow #{flow})"

  def describe(%__MODULE__{repo: repo} = set) when is_binary(repo),
    do: "#{describe(%{set | repo: nil, t3: nil})} (repository #{repo})"

  def describe(%__MODULE__{t3: t3} = set) when is_binary(t3),
    do: "#{describe(%{set | t3: nil})} (T3 #{t3})"

  def describe(%__MODULE__{model: model, language_pack: pack}) when is_binary(pack),
    do: "#{inspect(model)} (language pack #{pack})"

  def describe(%__MODULE__{model: model, version: nil}), do: inspect(model)
  def describe(%__MODULE__{model: model, version: version}), do: "#{inspect(model)} #{version}"

  @doc """
  The command that fetches the set's files.
  """
  @spec download_command(t, keyword) :: String.t()
  def download_command(%__MODULE__{} = set, more \\ []) do
    options = options(set) ++ more

    case System.get_env("RELEASE_ROOT") do
      nil ->
        Enum.join(["mix chatterbex.models download #{set.model}" | Enum.map(options, &flag/1)], " ")

      root ->
        options = Enum.map_join(options, fn {name, value} -> ", #{name}: #{inspect(value)}" end)
        program = Path.join(root, "bin/#{System.get_env("RELEASE_NAME", "my_app")}")
        "#{program} eval 'Chatterbex.ModelFiles.download!(#{inspect(set.model)}#{options})'"
    end
  end

  defp options(%{sources: [%{revision: revision} | _others]} = set) do
    for {name, value, usual} <- [
          {:version, set.version, :v3},
          {:language_pack, set.language_pack, nil},
          {:flow, set.flow, nil},
          {:repo, set.repo, nil},
          {:t3, set.t3, nil},
          {:revision, revision, "main"}
        ],
        value not in [nil, usual],
        do: {name, value}
  end

  defp flag({:force, true}), do: "--force"
  defp flag({name, value}), do: "--#{String.replace("#{name}", "_", "-")} #{value}"

  defp make(model, version, pack, revision) do
    key = Enum.find_value([pack, version], "#{model}", &(&1 && "#{model}-#{&1}"))
    [main | base] = Enum.map(@sets[key]["sources"], &source/1)

    %__MODULE__{
      model: model,
      version: version,
      language_pack: pack,
      sources: [%{main | revision: revision || "main"} | base]
    }
  end

  defp source(%{"repository" => repository, "files" => files} = source) do
    names = source["names"] || %{}
    required = for name <- files, do: %{name: name, as: names[name] || name, optional: false}
    optional = for name <- source["optional"] || [], do: %{name: name, as: name, optional: true}
    %{repository: repository, revision: "main", files: required ++ optional}
  end

  defp model(name) when not (is_atom(name) or is_binary(name)), do: {:error, unknown(name)}

  defp model(name) do
    known = Enum.find(@models, &(to_string(&1) == to_string(name)))

    cond do
      known -> {:ok, known}
      match?({:ok, _model}, Model.fetch(name)) -> {:error, has_none(name)}
      true -> {:error, unknown(name)}
    end
  end

  defp has_none(name) do
    Error.new(
      :not_supported,
      "the model :#{name} has no files to fetch. Those that have are #{list(@models)}.",
      %{model: name, models: @models}
    )
  end

  defp unknown(name) do
    hint = Options.did_you_mean(name, @models)

    Error.new(
      :unknown_model,
      "there is no model #{Options.Schema.show(name)}.#{hint} Those that have files are #{list(@models)}.",
      %{model: name, models: @models}
    )
  end

  defp version(nil, _model), do: {:ok, nil}

  defp version(given, :multilingual) do
    case Enum.find(@versions, &(given in [&1, Atom.to_string(&1)])) do
      nil -> {:error, invalid(:version, "one of #{list(@versions)}", given)}
      version -> {:ok, version}
    end
  end

  defp version(_given, model), do: {:error, only_multilingual(:version, model)}

  defp pack(nil, _model, _version), do: {:ok, nil}
  defp pack(given, :multilingual, nil) when given in @packs, do: {:ok, given}
  defp pack(given, :multilingual, nil), do: {:error, invalid(:language_pack, "one of #{list(@packs)}", given)}

  defp pack(_given, :multilingual, _version),
    do:
      {:error, Error.new(:invalid_option, "give either :version or :language_pack: a pack has one version.")}

  defp pack(_given, model, _version), do: {:error, only_multilingual(:language_pack, model)}

  defp flow(nil, _model), do: {:ok, nil}
  defp flow(given, model) when model in @flows and given in [:cfm, "cfm"], do: {:ok, nil}
  defp flow(given, model) when model in @flows and given in [:meanflow, "meanflow"], do: {:ok, :meanflow}

  defp flow(given, model) when model in @flows,
    do: {:error, invalid(:flow, "one of :cfm, :meanflow", given)}

  defp flow(_given, model) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(model)} has no option :flow; only #{list(@flows)} have it.",
       %{option: :flow, model: model}
     )}
  end

  defp revision(nil), do: {:ok, nil}

  defp revision(given) do
    if is_binary(given) and given =~ ~r"\A[A-Za-z0-9_][\w.-]*(/[\w][\w.-]*)*\z" and not (given =~ ".."),
      do: {:ok, given},
      else: {:error, invalid(:revision, ~s(a branch, a tag or a commit, as "main"), given)}
  end

  defp repo(nil, _model, _pack), do: {:ok, nil}
  defp repo(_given, :conversion, _pack), do: {:error, no_t3(:repo)}

  defp repo(_given, _model, pack) when is_binary(pack),
    do: {:error, Error.new(:invalid_option, "give either :repo or :language_pack, not both.")}

  defp repo(given, _model, nil) do
    if is_binary(given) and given =~ ~r"\A[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\z" and not (given =~ ".."),
      do: {:ok, given},
      else: {:error, invalid(:repo, ~s(a repository's name, as "someone/chatterbox-german"), given)}
  end

  defp t3(nil, _model, _repo), do: {:ok, nil}
  defp t3(_given, :conversion, _repo), do: {:error, no_t3(:t3)}

  defp t3(given, _model, repo) do
    cond do
      not (is_binary(given) and String.valid?(given) and Path.extname(given) == ".safetensors") ->
        {:error, invalid(:t3, "a .safetensors file", given)}

      is_nil(repo) ->
        {:ok, Path.expand(given)}

      given =~ ~r"\A[\w][\w. -]*(/[\w][\w. -]*)*\z" and not (given =~ "..") ->
        {:ok, given}

      true ->
        {:error, invalid(:t3, "the name of a file in the repository given as :repo", given)}
    end
  end

  defp no_t3(name) do
    Error.new(
      :not_supported,
      "the model :conversion has no T3, so it has no option #{inspect(name)}.",
      %{option: name, model: :conversion}
    )
  end

  defp only_multilingual(name, model) do
    Error.new(
      :not_supported,
      "the model #{inspect(model)} has no option #{inspect(name)}; only :multilingual has it.",
      %{option: name, model: model}
    )
  end

  defp invalid(name, expected, got) do
    Error.new(:invalid_option, "option #{inspect(name)} must be #{expected}, got #{inspect(got)}", %{
      option: name,
      got: got
    })
  end

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)
end
