defmodule Chatterbex.Setup.PythonSearch do
  @moduledoc false
  # The steps that find a Python that can be embedded, and uv: the Python that the user named or that the environment has,
  # then uv, then the Pythons that uv finds or downloads.

  alias Chatterbex.Python
  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, PackageProfile, PythonInterpreter, SetupFailure}
  alias Chatterbex.Setup.{SetupRun, StepReport, Uv}

  # What uv downloads if the machine has no Python that fits.
  @download "3.12"

  @doc "The steps, in order."
  @spec steps() :: [StepReport.step()]
  def steps, do: [&given/1, &uv/1, &search/1]

  # A Python that the user named is used or refused; no other one is used instead.
  defp given(%SetupRun{python: python} = run) when is_binary(python) do
    version = version(python)

    cond do
      version in PackageProfile.pythons() ->
        :skip

      version ->
        {:error,
         none(run, [], ["Python #{version} cannot be used: only #{PythonInterpreter.supported()} can"])}

      path = named(python, run.machine) ->
        {:python, title(run), fn -> path |> PythonInterpreter.examine(run.machine) |> found(run) end}

      true ->
        {:error, none(run, [], ["#{python}: there is no such program on PATH"])}
    end
  end

  # The setup continues with the environment that exists.
  defp given(%SetupRun{force: true}), do: :skip

  defp given(run) do
    program = Python.program(run.venv)

    if EnvironmentManifest.ours?(run.venv) and HostMachine.executable?(program) do
      {:python, title(run),
       fn ->
         case PythonInterpreter.examine(program, run.machine) do
           {:ok, interpreter} -> found({:ok, interpreter}, run)
           {:error, %{why: why}} -> {:ok, %{}, "not that of the environment: #{why}"}
         end
       end}
    else
      :skip
    end
  end

  # The version in the value of `--python`, if it is one.
  defp version(given), do: if(given && given =~ ~r/\A\d+\.\d+\z/, do: given)

  defp named(given, machine) do
    cond do
      not String.contains?(given, "/") ->
        %{machine | folders: []} |> HostMachine.executables([given]) |> List.first()

      File.dir?(given) ->
        Path.join(Path.expand(given), "bin/python3")

      true ->
        Path.expand(given)
    end
  end

  defp uv(run) do
    {:uv, "getting uv",
     fn ->
       with nil <- Uv.find(run.machine, run.home), {:ok, uv, python} <- fetch_uv(run) do
         {:ok, %{uv: uv}, "#{uv.version}, installed into #{uv.path} with the pip of #{python}"}
       else
         %Uv{} = uv -> {:ok, %{uv: uv}, "#{uv.version}, #{uv.path}"}
         {:error, error} -> {:error, error}
       end
     end}
  end

  # A Python that cannot be embedded can still fetch uv, which brings one that can.
  defp fetch_uv(run) do
    names = ["python3" | Enum.map(PackageProfile.pythons(), &"python#{&1}")]
    pythons = Enum.map(List.wrap(run.interpreter), & &1.path) ++ HostMachine.executables(run.machine, names)

    Enum.reduce_while(pythons, {:error, none(run, [], [])}, fn python, _before ->
      run.report.({:detail, "installing uv with the pip of #{python}"})

      case Uv.fetch(python, run.home) do
        {:ok, uv} -> {:halt, {:ok, uv, python}}
        {:error, %{tool: "venv"} = failure} -> {:cont, {:error, failure}}
        {:error, failure} -> {:halt, {:error, failure}}
      end
    end)
  end

  defp search(%SetupRun{interpreter: nil} = run) do
    {:python, title(run),
     fn ->
       with {:error, rejected} <- listed(run, version(run.python)),
            {:error, error} <- download(run, rejected, version(run.python) || @download) do
         {:error, error}
       else
         {:ok, interpreter} -> found({:ok, interpreter}, run)
       end
     end}
  end

  defp search(_found), do: :skip

  # The first that fits. pyenv's come last: uv asks each of them, which takes seconds.
  defp listed(%{machine: machine} = run, version) do
    [machine.path ++ machine.folders, machine.pyenv]
    |> Enum.reject(&(&1 == []))
    |> Stream.flat_map(fn folders -> run.uv |> Uv.pythons(folders) |> Enum.sort_by(&rank/1) end)
    |> Stream.uniq_by(& &1["path"])
    |> Enum.reduce_while({:error, []}, fn %{"path" => path}, {:error, rejected} ->
      case PythonInterpreter.examine(path, run.machine, version) do
        {:ok, interpreter} ->
          for %{path: path, why: why} <- rejected, do: run.report.({:line, "skipped #{path}: #{why}"})
          {:halt, {:ok, interpreter}}

        {:error, why} ->
          {:cont, {:error, rejected ++ [why]}}
      end
    end)
  end

  # uv's own first, and the versions in their order of preference. Others are last, to be named if nothing fits.
  defp rank(%{"path" => path, "version" => version}) do
    folder = System.get_env("UV_PYTHON_INSTALL_DIR", "")
    managed? = path =~ "/uv/python/" or (folder != "" and String.starts_with?(path, folder))
    minor = version |> String.split(".") |> Enum.take(2) |> Enum.join(".")
    preference = Enum.find_index(PackageProfile.pythons(), &(&1 == minor))
    {preference == nil, not managed?, preference}
  end

  defp download(run, rejected, version) do
    if System.get_env("UV_PYTHON_DOWNLOADS") in ["never", "manual"] do
      {:error, none(run, rejected, ["uv may not download one: UV_PYTHON_DOWNLOADS forbids it"])}
    else
      run.report.({:detail, "none will do here; downloading Python #{version} with uv"})

      with {:ok, _output} <- Uv.download_python(run.uv, version),
           {:error, rejected} <- listed(run, version) do
        {:error, none(run, rejected, [])}
      else
        {:ok, interpreter} ->
          {:ok, interpreter}

        {:error, failure} ->
          {:error, none(run, rejected, ["uv python install: #{last_line(failure.output)}"])}
      end
    end
  end

  defp title(run),
    do: "looking for Python #{run.python || PythonInterpreter.supported()} with a shared library"

  defp found({:error, rejected}, run), do: {:error, none(run, [rejected], [])}

  defp found({:ok, interpreter}, _run) do
    note = "Python #{interpreter.version}, #{interpreter.base_executable}, with #{interpreter.libpython}"
    {:ok, %{interpreter: interpreter}, note}
  end

  defp none(run, rejected, notes) do
    looked = Enum.map(rejected, &"#{&1.path}: #{&1.why}") ++ notes
    supported = PythonInterpreter.supported()

    message =
      if looked == [],
        do: "no Python was found on this machine.",
        else: "no usable Python #{supported} with a shared library was found:\n#{SetupFailure.quoted(looked)}"

    hint = Enum.find_value(rejected, & &1.remedy) || hint(run)
    SetupFailure.error(message, hint, run, %{rejected: Enum.map(rejected, &Map.take(&1, [:path, :why]))})
  end

  defp hint(%{python: python, machine: machine}) do
    cond do
      python ->
        "name another with --python, or leave --python out: the setup then looks for one itself."

      machine.os == :macos ->
        "brew install python@3.12"

      machine.debian ->
        "sudo apt-get install -y python3 python3-venv libpython3-dev, or uv, which brings its own Python."

      true ->
        "install Python 3.12 with its shared library from your system's packages, or uv, which brings its own."
    end
  end

  defp last_line(output), do: output |> String.trim() |> String.split("\n") |> List.last() |> String.trim()
end
