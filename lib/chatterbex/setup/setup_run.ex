defmodule Chatterbex.Setup.SetupRun do
  @moduledoc false
  # One run of the setup: its checked options, what they need on this machine, and what the steps have found so far.

  alias Chatterbex.{Error, Model, Options, Python, Terminal}
  alias Chatterbex.ModelFiles.Set

  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, PackageProfile, StepReport, TorchPlan}

  # What the user asked for; what comes from `decide/1`; what the steps find.
  @given ~w(home venv python force device torch report machine profiles)a
  @found ~w(plan before interpreter uv reuse found proof environment)a
  @others [models: [], languages: [], wanted: [], changed: false, model_files: Chatterbex.ModelFiles]

  defstruct @given ++ @found ++ @others

  @type t :: %__MODULE__{plan: TorchPlan.t() | nil, environment: Python.t() | nil}

  # A test gives a machine, something small to install, and something small to fetch; the Mix task takes the events.
  @hidden [:machine, :profiles, :model_files, :on_event]

  @doc "Checks the options of `Chatterbex.Setup.run/1`."
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options) do
    {hidden, given} = if Keyword.keyword?(options), do: Keyword.split(options, @hidden), else: {[], options}

    with {:ok, valid} <- Options.validate(:setup, given),
         nil <- Enum.find_value(valid.models, &no_files/1),
         nil <- Enum.find_value(valid.languages, &no_language/1) do
      home = Python.home(home: valid.home)

      others =
        hidden
        |> Keyword.delete(:on_event)
        |> Keyword.put_new_lazy(:machine, &HostMachine.this/0)
        |> Keyword.put_new_lazy(:profiles, &PackageProfile.all/0)

      found = [home: home, venv: Python.venv(home), report: report(options)]
      {:ok, __MODULE__ |> struct!(Map.delete(valid, :quiet)) |> struct!(found ++ others)}
    else
      {:error, error} -> {:error, error}
      error -> {:error, error}
    end
  end

  @doc "Looks at the existing environment, and decides what to install."
  @spec decide(t) :: {:ok, t} | {:error, Error.t()}
  def decide(run) do
    before =
      with {:ok, manifest} <- EnvironmentManifest.read(run.venv), do: manifest, else: (_unreadable -> nil)

    with {:ok, plan} <- TorchPlan.plan(run, before, Python.setup_command(run.home)) do
      wanted = PackageProfile.wanted(run.profiles, plan != nil, run.languages, before)
      {:ok, %{run | plan: plan, wanted: wanted, before: before}}
    end
  end

  @doc "The existing environment: see `Chatterbex.Python.find/1`."
  @spec find(t) :: {:ok, Python.t()} | {:error, Error.t()}
  def find(%__MODULE__{home: home, profiles: [first | _others]}),
    do: Python.find(home: home, profiles: [first.name])

  @doc "The function that takes the events of a setup with these options."
  @spec report(keyword) :: StepReport.report()
  def report(options) do
    cond do
      options[:on_event] -> options[:on_event]
      options[:quiet] == true -> fn _event -> :ok end
      is_function(options[:report], 1) -> StepReport.lines(options[:report])
      Terminal.terminal?(2) -> StepReport.live()
      true -> StepReport.lines(&IO.puts(:stderr, &1))
    end
  end

  defp no_files(name), do: with({:ok, _set} <- Set.fetch(name, []), do: nil, else: ({:error, error} -> error))

  defp no_language(code) do
    {:ok, %{languages: languages}} = Model.fetch(:multilingual)

    unless code in languages do
      known = Enum.join(languages, ", ")
      message = "there is no language #{inspect(code)}. The multilingual models speak #{known}."
      Error.new(:unknown_language, message, %{language: code, languages: languages})
    end
  end
end
