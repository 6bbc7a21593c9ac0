defmodule Chatterbex.Setup.Request do
  @moduledoc false
  # The checked options of a setup.

  alias Chatterbex.{Error, Model, Options, Python}
  alias Chatterbex.ModelFiles.Set
  alias Chatterbex.Setup.{Machine, Manifest, Profile, Step, Torch}

  @enforce_keys [
    :home,
    :venv,
    :python,
    :force,
    :device,
    :torch,
    :models,
    :languages,
    :report,
    :machine,
    :profiles,
    :model_files
  ]
  defstruct @enforce_keys ++ [plan: nil, wanted: []]

  @typedoc """
  `plan` and `wanted` depend on the state of the machine: see `decide/1`.
  """
  @type t :: %__MODULE__{
          home: Path.t(),
          venv: Path.t(),
          python: String.t() | nil,
          force: boolean,
          device: :mps | :cuda | :cpu | :auto | nil,
          torch: String.t() | nil,
          models: [String.t()],
          languages: [String.t()],
          report: Step.report(),
          machine: Machine.t(),
          profiles: [Profile.t()],
          model_files: module,
          plan: Torch.t() | nil,
          wanted: [Profile.t()]
        }

  @devices [:mps, :cuda, :cpu, :auto]

  @names [:home, :python, :force, :quiet, :device, :torch, :models, :languages, :report]

  @doc """
  Checks the options of `Chatterbex.Setup.run/1`.
  """
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options) do
    # A test gives a machine, something small to install, and something small to fetch.
    with :ok <- Options.known(options, @names, [:machine, :profiles, :model_files]), do: check(options)
  end

  defp check(options) do
    {model_files, options} = Keyword.pop(options, :model_files, Chatterbex.ModelFiles)
    {machine, options} = Keyword.pop_lazy(options, :machine, &Machine.this/0)
    {profiles, options} = Keyword.pop_lazy(options, :profiles, &Profile.all/0)
    invalid = Enum.find(options, fn {name, value} -> not valid?(name, value) end)

    cond do
      invalid -> {:error, invalid(invalid)}
      error = Enum.find_value(names(options[:models]), &no_files/1) -> {:error, error}
      error = Enum.find_value(names(options[:languages]), &no_language/1) -> {:error, error}
      true -> {:ok, %{request(options, machine, profiles) | model_files: model_files}}
    end
  end

  defp request(options, machine, profiles) do
    home = Python.home(home: options[:home])

    %__MODULE__{
      home: home,
      venv: Python.venv(home),
      python: options[:python],
      force: options[:force] == true,
      device: options[:device],
      torch: options[:torch],
      models: names(options[:models]),
      languages: names(options[:languages]),
      report: report(options),
      machine: machine,
      profiles: profiles,
      model_files: nil
    }
  end

  @doc """
  Looks at the existing environment, and decides what to install.
  """
  @spec decide(t) :: {:ok, t} | {:error, Error.t()}
  def decide(%__MODULE__{} = request) do
    manifest = with {:ok, manifest} <- Manifest.read(request.venv), do: manifest, else: (_unreadable -> nil)

    with {:ok, plan} <- Torch.plan(request, manifest) do
      {:ok,
       %{
         request
         | plan: plan,
           wanted: Profile.wanted(request.profiles, plan != nil, request.languages, manifest)
       }}
    end
  end

  @doc """
  The options of the command to run again.
  """
  @spec again(t) :: keyword
  def again(%__MODULE__{} = request) do
    [device: request.device, torch: request.torch, models: request.models, languages: request.languages]
    |> Enum.reject(fn {_name, value} -> value in [nil, []] end)
  end

  @doc """
  The function that reports lines.
  """
  @spec report(keyword) :: Step.report()
  def report(options) do
    cond do
      options[:quiet] == true -> fn _line -> :ok end
      is_function(options[:report], 1) -> options[:report]
      true -> &IO.puts(:stderr, &1)
    end
  end

  defp valid?(_name, nil), do: true
  defp valid?(name, value) when name in [:home, :python], do: is_binary(value) and value != ""
  defp valid?(name, value) when name in [:force, :quiet], do: is_boolean(value)
  defp valid?(:device, value), do: value in @devices
  defp valid?(:torch, value), do: is_binary(value) and value =~ ~r/\A\d+\.\d+(\.\d+)?(\+[a-z0-9.]+)?\z/

  defp valid?(name, value) when name in [:models, :languages],
    do: is_list(value) and Enum.all?(value, &(is_atom(&1) or is_binary(&1)))

  defp valid?(:report, value), do: is_function(value, 1)

  defp names(given), do: given |> List.wrap() |> Enum.map(&to_string/1) |> Enum.uniq()

  defp no_files(name) do
    case Set.fetch(name, []) do
      {:ok, _set} -> nil
      {:error, error} -> error
    end
  end

  defp no_language(code) do
    {:ok, %{languages: languages}} = Model.fetch(:multilingual)

    unless code in languages do
      Error.new(
        :unknown_language,
        "there is no language #{inspect(code)}. The multilingual models speak #{Enum.join(languages, ", ")}.",
        %{language: code, languages: languages}
      )
    end
  end

  defp invalid({name, value}) do
    expected =
      case name do
        name when name in [:home, :python] -> "a string that is not empty"
        :device -> "one of #{list(@devices)}"
        :torch -> "a version such as \"2.7.1\""
        name when name in [:models, :languages] -> "a list of names"
        :report -> "a function of one argument"
        _flag -> "true or false"
      end

    Error.new(:invalid_option, "option #{inspect(name)} must be #{expected}, got #{inspect(value)}", %{
      option: name,
      got: value
    })
  end

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)

  @doc """
  The existing environment: see `Chatterbex.Python.find/1`.
  """
  @spec find(t) :: {:ok, Python.t()} | {:error, Error.t()}
  def find(%__MODULE__{home: home, profiles: [first | _others]}),
    do: Python.find(home: home, profiles: [first.name])
end
