defmodule Chatterbex.Setup do
  @moduledoc """
  Sets up Python: finds one that can be embedded, creates an environment for it, installs what the voices
  need, and checks that it loads.

  Usually you run `mix chatterbex.setup`. Without Mix, as in a release, call this module:

      bin/my_app eval 'Chatterbex.Setup.run!()'

  ## What it does

    1. It looks for Python 3.10 to 3.14 with a shared library: the one you name, those that uv manages or
       finds, and those of the system, of Homebrew and of pyenv. If none fits, it has uv download one
       (unless `UV_PYTHON_DOWNLOADS` is `never` or `manual`). It runs each candidate to learn about it, and
       opens its shared library to check that it works.
    2. It creates an environment in the home (`Chatterbex.Python.home/1`) with uv. If there is no uv, it uses
       Python's own `venv`, and installs uv into that environment with pip.
    3. It installs the packages in the lock files and verifies their checksums.
    4. It checks that every file exists and that the modules load. If you want PyTorch, it also runs small
       pieces of the models' work on the device and on the CPU, and compares the results.
    5. It records what is installed, so that servers find it.
    6. It fetches the files of the models that you name.

  It is safe to run again. With nothing to do it ends at once and needs no network. After an interruption it
  continues where it stopped. With other options it adds to the environment. Two setups at once wait for each
  other. It respects the settings of pip (`PIP_INDEX_URL`, pip.conf) and of uv (`UV_DEFAULT_INDEX`, uv.toml).
  """

  alias Chatterbex.{Error, Files.Replacement, Python, Terminal}

  alias Chatterbex.Setup.{
    Build,
    Failure,
    Interpreter,
    Lock,
    Machine,
    Manifest,
    Place,
    Profile,
    Request,
    Search,
    Step,
    Torch
  }

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

    * `:home` - the folder for the environment, a string. Default: `Chatterbex.Python.home/0`.
    * `:python` - the Python to use: a path, a name on PATH, or a version such as `"3.11"`. Default: the first one
      found that fits.
    * `:force` - `true` builds everything again. If that fails, the old environment is restored. Default: `false`.
    * `:quiet` - `true` prints nothing. Default: `false`.
    * `:device` - `:mps`, `:cuda`, `:cpu` or `:auto` (the best device of the machine): also installs PyTorch, which the
      Chatterbox models need. A device that the machine does not have, or that does not work, is not an error:
      PyTorch is then set up for the CPU, and a line says why. Default: `nil`, which keeps what is installed; `:auto` if
      you give one of the following options.
    * `:models` - names of models whose files to fetch too: `english`, `multilingual`, `turbo`, `nano`,
      `conversion`, as atoms or strings. Default: `[]`.
    * `:languages` - ISO 639-1 codes of languages whose extra packages to install. Default: `[]`.
    * `:torch` - a version of PyTorch other than the locked one, such as `"2.7.1"`. It comes from the index, and its
      hashes are not checked. Default: `nil`.
    * `:report` - a function that is called with each line, instead of printing it to stderr.

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
      if is_list(options) and options[:quiet] != true, do: Request.report(options).("\n" <> error.message)
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
    started = Step.now()

    with {:ok, request} <- Request.new(options),
         :ok <- supported(request),
         {:ok, python, changed} <- ensure(request),
         :ok <- fetch_models(request) do
      {:ok, summary(python, changed, started, request)}
    end
  end

  defp supported(%Request{machine: %Machine{os: :windows}}) do
    {:error,
     Error.new(:not_supported, "Windows is not supported. Run Chatterbex in WSL 2, a Linux inside Windows.")}
  end

  defp supported(_request), do: :ok

  defp ensure(request) do
    with {:ok, request} <- Request.decide(request) do
      announce(request)

      case complete(request) do
        {:ok, python} ->
          request.report.("Nothing to do: Python #{python.version} and its packages are in #{request.venv}.")
          {:ok, python, false}

        :incomplete ->
          with :ok <- writable(request),
               {:ok, {interpreter, uv}} <- Search.run(request),
               do: alone(interpreter, uv, request)
      end
    end
  end

  defp announce(request) do
    titles = Enum.map_join(request.wanted, ", ", & &1.title)
    request.report.("Chatterbex setup: #{titles}, in #{request.home}")

    with line when line != nil <- Torch.announcement(request.plan, request), do: request.report.(line)

    case request.languages -- Enum.map(request.profiles, & &1.language) do
      [] -> :ok
      codes -> request.report.("--languages: #{Enum.join(codes, ", ")}: nothing to install.")
    end
  end

  # Looks at files only, so that a run with nothing to do is fast.
  defp complete(%{force: true}), do: :incomplete

  defp complete(request) do
    with {:ok, %{manifest: manifest} = python} <- Request.find(request),
         false <- Manifest.begun?(request.venv),
         true <- Enum.all?(request.wanted, &Profile.current?(&1, manifest)),
         true <- Torch.there?(request.plan, request, manifest),
         true <- request.models -- (manifest["models"] || []) == [],
         true <- request.languages -- (manifest["languages"] || []) == [],
         true <- same_python?(request, manifest) do
      {:ok, python}
    else
      _something_to_do -> :incomplete
    end
  end

  defp same_python?(%{python: nil}, _manifest), do: true
  defp same_python?(%{python: given}, %{"python" => %{"requested" => given}}), do: true

  defp same_python?(%{python: given}, %{"python" => %{"base_executable" => base}}),
    do: String.contains?(given, "/") and Interpreter.same_file?(Path.expand(given), base)

  defp writable(%{home: home} = request) do
    probe = Replacement.unique(Path.join(home, ".writable"))

    with :ok <- File.mkdir_p(home), :ok <- File.write(probe, "", [:exclusive]) do
      _gone = File.rm(probe)
      :ok
    else
      {:error, reason} ->
        {:error,
         Failure.error(
           "the folder #{home} cannot be written: #{:file.format_error(reason)}.",
           "let #{System.get_env("USER", "this user")} write there, or give another folder with --path or CHATTERBEX_HOME.",
           request,
           %{posix: reason}
         )}
    end
  end

  defp alone(interpreter, uv, request) do
    busy = &Step.note(request.report, "another setup (process #{&1}) is running here; waiting for it")
    lock = Path.join(request.home, "setup.lock")

    result =
      Lock.hold(interpreter.base_executable, lock, busy, @busy_timeout, fn ->
        # The other setup may have done this work already.
        with {:ok, request} <- Request.decide(request) do
          case complete(request) do
            {:ok, python} -> {:ok, python, false}
            :incomplete -> build(interpreter, uv, request)
          end
        end
      end)

    with {:error, {:busy, pid}} <- result do
      {:error,
       Failure.error(
         "another setup (process #{pid}) has been running in #{request.home} for an hour.",
         "wait until it ends, or end it: kill #{pid}",
         request
       )}
    end
  end

  defp build(interpreter, uv, request) do
    with {:ok, state} <- Place.prepare(interpreter, request),
         {:ok, python} <- state |> Build.run(interpreter, uv, request) |> Place.finish(request) do
      {:ok, python, true}
    end
  end

  defp fetch_models(request) do
    Enum.reduce_while(request.models, :ok, fn model, :ok ->
      case fetch(model, request) do
        {:ok, _folder} -> {:cont, :ok}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
  end

  defp fetch(model, request) do
    Step.run(request.report, "fetching the files of #{model}", fn ->
      options = [home: request.home, on_progress: &fetched(&1, request.report)]
      with {:ok, folder} <- request.model_files.download(model, options), do: {:ok, folder, "in #{folder}"}
    end)
  end

  # It is called several times a second: each tenth is reported once, and so is each wait.
  defp fetched(progress, report) do
    line = progress.message || part(progress)
    if line != nil and Process.put(__MODULE__, line) != line, do: Step.note(report, line)
  end

  defp part(%{bytes: bytes, total: total}) when is_integer(bytes) and is_integer(total) and total > 0,
    do: "#{div(bytes * 10, total)}0 % of #{Terminal.bytes(total)}"

  defp part(_unknown), do: nil

  defp summary(python, changed, started, request) do
    if changed do
      request.report.("Ready after #{Step.seconds(started)}.")
      unless python.home == Python.home(), do: request.report.(elsewhere(python.home))
    end

    %{
      home: python.home,
      program: python.program,
      libpython: python.libpython,
      python: python.version,
      profiles: python.manifest["profiles"] |> Map.keys() |> Enum.sort(),
      packages: python.manifest["packages"],
      device: Torch.recorded(python.manifest)[:device],
      changed: changed,
      seconds: (Step.now() - started) / 1000
    }
  end

  defp elsewhere(home) do
    "This is not the default folder. So that it is found, set CHATTERBEX_HOME=#{home}, or " <>
      "config :chatterbex, home: #{inspect(home)}."
  end
end
