defmodule Chatterbex.Setup do
  @moduledoc """
  Sets up Python: finds one that can be embedded, creates an environment for it, installs what the voices
  need, and checks that it loads.

  Usually you run `mix chatterbex.setup`. Without Mix, as in a release, call this module:

      bin/my_app eval 'Chatterbex.Setup.run!()'

  It gets uv, finds a Python that can be embedded (or has uv download one), makes an environment for it in the home
  (`Chatterbex.Python.home/1`), installs the packages in the lock files by their hashes, and checks that they work. With
  PyTorch it also runs a trial on the device and on the CPU; the results must agree. Finally it records what is installed,
  so that servers find it.

  It is safe to run again. With nothing to do it ends at once and needs no network. After an interruption it continues
  where it stopped. With other options it adds to the environment. Two setups at once wait for each other. It respects the
  settings of pip (`PIP_INDEX_URL`, pip.conf) and of uv (`UV_DEFAULT_INDEX`, uv.toml). If the machine has no uv, pip
  installs it into the home.
  """

  alias Chatterbex.{DownloadBar, Error, Python, Terminal}

  alias Chatterbex.Setup.{EnvironmentBuild, EnvironmentManifest, HostMachine, PackageProfile}
  alias Chatterbex.Setup.{PythonInterpreter, PythonSearch, SetupFailure, SetupLock, SetupRun, StepReport}
  alias Chatterbex.Setup.TorchPlan

  # How long to wait for another setup of the same home.
  @busy_timeout :timer.minutes(60)

  @typedoc """
  The installed environment. `device` is the one that PyTorch is set up for, `nil` without PyTorch. `changed` is false if
  there was nothing to do. `seconds` is how long it took.
  """
  @type summary :: %{
          home: Path.t(),
          program: Path.t(),
          libpython: Path.t(),
          python: String.t(),
          profiles: [String.t()],
          packages: %{String.t() => String.t()},
          device: :mps | :cuda | :cpu | nil,
          changed: boolean,
          seconds: float
        }

  @doc """
  Creates the environment, or completes it, and prints each step to stderr.

  ## Options

  #{Chatterbex.Options.Schema.docs(:setup)}

  An error has the reason `:not_set_up` (the message says what failed, the last output of the tool, what to do, and
  the command to run then), `:invalid_option`, `:unknown_model`, `:unknown_language`, `:not_supported` (on Windows, and
  for PyTorch on a Mac with an Intel processor) or one of `Chatterbex.ModelFiles.download/2`.

  ## Examples

      iex> {:error, error} = Chatterbex.Setup.run(pyton: "3.11", quiet: true)
      iex> error.message
      "unknown option :pyton. Did you mean :python? The options are :home, :python, :force, :quiet, :device, :torch, :models, :languages, :report."

  A run with nothing to do:

      {:ok, %{changed: false, python: "3.11.7"}} = Chatterbex.Setup.run(quiet: true)
  """
  @spec run(keyword) :: {:ok, summary} | {:error, Error.t()}
  def run(options \\ []) do
    with {:error, error} <- provision(options) do
      # In `eval` nobody else would print it.
      if is_list(options), do: SetupRun.report(options).({:line, "\n" <> error.message})
      {:error, error}
    end
  end

  @doc """
  The same as `run/1`, but raises the error, so that `eval` in a release ends with an exit code other than 0.

  ## Examples

      iex> Chatterbex.Setup.run!(quiet: true, device: :gpu)
      ** (Chatterbex.Error) option :device must be one of :mps, :cuda, :cpu, :auto, got :gpu
  """
  @spec run!(keyword) :: summary
  def run!(options \\ []) do
    case provision(options) do
      {:ok, summary} -> summary
      {:error, error} -> raise error
    end
  end

  # The same as run/1, for a caller that shows the error itself.
  @doc false
  @spec provision(keyword) :: {:ok, summary} | {:error, Error.t()}
  def provision(options) do
    started = StepReport.now()

    with {:ok, run} <- SetupRun.new(options),
         :ok <- supported(run.machine),
         {:ok, run} <- SetupRun.decide(run),
         _announced = announce(run),
         {:ok, run} <- unless_complete(run, &search_and_build/1),
         {:ok, run} <- StepReport.run(Enum.map(run.models, &fetch_step/1), run),
         do: {:ok, summary(run, StepReport.seconds(started))}
  end

  defp supported(%HostMachine{os: :windows}) do
    {:error,
     Error.new(:not_supported, "Windows is not supported. Run Chatterbex in WSL 2, a Linux inside Windows.")}
  end

  defp supported(_machine), do: :ok

  defp announce(run) do
    nothing = run.languages -- Enum.map(run.profiles, & &1.language)

    for line <- [
          "Chatterbex setup: #{Enum.map_join(run.wanted, ", ", & &1.title)}, in #{run.home}",
          TorchPlan.announcement(run),
          if(nothing != [], do: "--languages: #{Enum.join(nothing, ", ")}: nothing to install.")
        ],
        line != nil,
        do: run.report.({:line, line})
  end

  defp unless_complete(run, work) do
    case complete(run) do
      {:ok, python} ->
        run.report.({:line, "Nothing to do: Python #{python.version} and its packages are in #{run.venv}."})
        {:ok, %{run | environment: python}}

      :incomplete ->
        work.(run)
    end
  end

  # Looks at files only, so that a run with nothing to do is fast.
  defp complete(%{force: true}), do: :incomplete

  defp complete(run) do
    with {:ok, %{manifest: manifest} = python} <- SetupRun.find(run),
         false <- EnvironmentManifest.begun?(run.venv),
         true <- Enum.all?(run.wanted, &PackageProfile.current?(&1, manifest)),
         true <- TorchPlan.there?(run, manifest),
         true <- run.models -- (manifest["models"] || []) == [],
         true <- run.languages -- (manifest["languages"] || []) == [],
         true <- same_python?(run.python, manifest["python"]) do
      {:ok, python}
    else
      _something_to_do -> :incomplete
    end
  end

  defp same_python?(given, %{"requested" => given}), do: true
  defp same_python?(nil, _python), do: true

  defp same_python?(given, python),
    do: PythonInterpreter.same_file?(Path.expand(given), python["base_executable"])

  defp search_and_build(run) do
    with {:ok, run} <- StepReport.run([(&make_home/1) | PythonSearch.steps()], run) do
      busy = &run.report.({:line, "another setup (process #{&1}) is running here; waiting for it"})
      lock = Path.join(run.home, "setup.lock")

      # The other setup may have done this work already.
      work = fn ->
        with {:ok, run} <- SetupRun.decide(run), do: unless_complete(run, &EnvironmentBuild.run/1)
      end

      with {:error, {:busy, pid}} <-
             SetupLock.hold(run.interpreter.base_executable, lock, busy, @busy_timeout, work) do
        message = "another setup (process #{pid}) has been running in #{run.home} for an hour."
        {:error, SetupFailure.error(message, "wait until it ends, or end it: kill #{pid}", run)}
      end
    end
  end

  defp make_home(run) do
    with {:error, reason} <- File.mkdir_p(run.home),
         do: {:error, SetupFailure.unwritable(run.home, reason, run)},
         else: (:ok -> :skip)
  end

  defp fetch_step(model) do
    fn run ->
      {:model, "fetching the files of #{model}",
       fn ->
         on_progress = DownloadBar.on_progress(&run.report.({:detail, "#{model} #{&1}"}))

         with {:ok, folder} <- run.model_files.download(model, home: run.home, on_progress: on_progress),
              do: {:ok, %{}, "in #{folder}"}
       end}
    end
  end

  defp summary(%SetupRun{environment: python} = run, seconds) do
    packages = python.manifest["packages"]

    if run.changed do
      size = Terminal.bytes(python.manifest["bytes"])

      run.report.(
        {:line, "Ready after #{StepReport.time(seconds)}: #{map_size(packages)} packages, #{size}."}
      )

      if python.home != Python.home(), do: run.report.({:line, elsewhere(python.home)})
    end

    %{
      home: python.home,
      program: python.program,
      libpython: python.libpython,
      python: python.version,
      profiles: python.manifest["profiles"] |> Map.keys() |> Enum.sort(),
      packages: packages,
      device: TorchPlan.recorded(python.manifest)[:device],
      changed: run.changed,
      seconds: seconds
    }
  end

  defp elsewhere(home) do
    "This is not the default folder. So that it is found, set CHATTERBEX_HOME=#{home}, or " <>
      "config :chatterbex, home: #{inspect(home)}."
  end
end
