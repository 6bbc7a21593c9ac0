defmodule Chatterbex.Setup.EnvironmentBuild do
  @moduledoc false
  # The steps that make an environment, or complete the one that is there: packages, the proof that they work, the manifest.

  alias Chatterbex.{Configuration, Error, Python, Terminal}

  alias Chatterbex.Setup.{EnvironmentManifest, PackageInstall, PackageProfile, PythonInterpreter}
  alias Chatterbex.Setup.{SetupFailure, SetupRun, StepReport, Subprocess, TorchPlan, Uv}

  @check_timeout :timer.minutes(10)

  @doc "Builds what is missing. If a new environment fails, the old one is restored."
  @spec run(SetupRun.t()) :: {:ok, SetupRun.t()} | {:error, Error.t()}
  def run(run) do
    data = for %{data: script} = profile when script != nil <- run.wanted, do: &fetch_data(profile, &1)
    steps = [&begin/1, &make/1, &install/1, &check/1, &prove/1] ++ data ++ [&record/1]

    with {:ok, run} <- StepReport.run([&prepare/1], run) do
      case StepReport.run(steps, run) do
        {:ok, run} ->
          _removed = File.rm_rf(aside(run))
          {:ok, run}

        {:error, error} ->
          restore(run)
          {:error, error}
      end
    end
  end

  # What to do with an existing environment: work continues with it, or it is put aside until the new one is complete, or
  # it is removed.
  defp prepare(%{venv: venv} = run) do
    cond do
      File.ls(venv) in [{:error, :enoent}, {:ok, []}] -> :skip
      not EnvironmentManifest.ours?(venv) -> {:error, not_ours(run)}
      reusable?(run) -> {:ok, %{reuse: true}}
      true -> clear(run)
    end
  end

  defp begin(run) do
    case EnvironmentManifest.begin(run.venv) do
      :ok -> :skip
      {:error, reason} -> {:error, SetupFailure.unwritable(run.venv, reason, run)}
    end
  end

  defp not_ours(run) do
    message = "#{run.venv} exists and was not made by this setup, so it is left alone."
    SetupFailure.error(message, "remove it, or give another folder with --path.", run)
  end

  defp reusable?(%{force: true}), do: false

  defp reusable?(%{interpreter: wanted} = run) do
    case PythonInterpreter.examine(Python.program(run.venv), run.machine) do
      {:ok, found} -> {found.version, found.libpython} == {wanted.version, wanted.libpython}
      {:error, _broken} -> false
    end
  end

  # A working environment is kept until a better one works.
  defp clear(%{venv: venv} = run) do
    works? = match?({:ok, _python}, SetupRun.find(run)) and not EnvironmentManifest.begun?(venv)

    with {:ok, _removed} <- File.rm_rf(if(works?, do: aside(run), else: venv)),
         :ok <- if(works?, do: File.rename(venv, aside(run)), else: :ok) do
      :skip
    else
      {:error, reason} -> {:error, SetupFailure.unwritable(venv, reason, run)}
      {:error, reason, path} -> {:error, SetupFailure.unwritable(path, reason, run)}
    end
  end

  defp aside(run), do: run.venv <> ".old"

  defp restore(run) do
    with true <- File.dir?(aside(run)),
         {:ok, _removed} <- File.rm_rf(run.venv),
         :ok <- File.rename(aside(run), run.venv),
         do: run.report.({:line, "The old environment is restored."})
  end

  # An installer believes that a package is installed even if some of its files are missing.
  defp make(%{reuse: true} = run) do
    {:environment, "continuing with the environment in #{run.venv}",
     fn ->
       case script("environment.py", ["repair"], run) do
         {:ok, %{"repaired" => []}} -> {:ok, %{}, "nothing is broken"}
         {:ok, %{"repaired" => names}} -> {:ok, %{}, "to be installed again: #{Enum.join(names, ", ")}"}
         {:error, failure} -> {:error, failure}
       end
     end}
  end

  defp make(run) do
    {:environment, "making an environment in #{run.venv}",
     fn ->
       with {:ok, _output} <- Uv.venv(run.uv, run.interpreter.base_executable, run.venv),
            do: {:ok, %{}, "made with uv #{run.uv.version}"}
     end}
  end

  defp install(run) do
    {:packages, "installing the packages",
     fn ->
       started = StepReport.now()
       progress = &run.report.({:detail, downloading(Uv.downloads(&1), StepReport.seconds(started))})

       with {:ok, plan, output} <- PackageInstall.run(run, progress),
            do: {:ok, %{plan: plan}, installed(output, run.uv)}
     end}
  end

  defp downloading(%{total: 0}, _seconds), do: "installing the packages"

  defp downloading(%{total: total, complete: complete}, seconds),
    do: "downloaded #{Terminal.bytes(complete)} of #{Terminal.bytes(total)}#{speed(complete, seconds)}"

  defp installed(output, uv) do
    added = length(Regex.scan(~r/^ \+ /m, output))
    %{total: total, seconds: seconds} = Uv.downloads(output)

    cond do
      added == 0 ->
        "all packages were there"

      total == 0 ->
        "#{added} packages installed with uv #{uv.version}"

      true ->
        "#{added} packages installed with uv #{uv.version}, #{Terminal.bytes(total)} downloaded#{speed(total, seconds)}"
    end
  end

  defp speed(bytes, seconds) do
    if bytes > 0 and is_number(seconds) and seconds > 0.1,
      do: " at #{Terminal.bytes(bytes / seconds)}/s",
      else: ""
  end

  defp check(run) do
    modules = run.wanted |> Enum.flat_map(& &1.imports) |> Enum.uniq()

    {:check, "checking that the packages load",
     fn ->
       with {:ok, answer} <- script("environment.py", ["check" | modules], run) do
         case problems(modules, answer) do
           [] ->
             names = Enum.map_join(modules, ", ", &PackageProfile.named(&1, answer["packages"]))
             note = "#{names}; all packages together take #{Terminal.bytes(answer["bytes"])}"
             {:ok, %{found: answer}, note}

           problems ->
             {:error, unusable("the packages were installed but do not work", problems, run)}
         end
       end
     end}
  end

  defp problems(modules, %{"imports" => imports} = answer) do
    for(module <- modules, not is_number(imports[module]), do: "#{module}: #{imports[module]}") ++
      for {name, file} <- answer["broken"] || %{}, do: "#{name}: #{file} is missing"
  end

  defp unusable(message, problems, run) do
    hint = "a library of the system may be missing, as named above; --force installs everything again."
    SetupFailure.error("#{message}:\n#{SetupFailure.quoted(problems)}", hint, run, %{problems: problems})
  end

  # PyTorch must work on the CPU. If a device does not work, the models run on the CPU, and a line says so.
  defp prove(%{plan: nil}), do: :skip

  defp prove(%{plan: plan} = run) do
    {:proof, "trying PyTorch on #{TorchPlan.name(plan.device)}",
     fn ->
       case script(Enum.find_value(run.wanted, & &1.proof), [Atom.to_string(plan.device)], run) do
         {:ok, %{"error" => nil, "fault" => fault} = answer} ->
           if fault,
             do: run.report.({:line, "It does not work there, so the models will run on the CPU: #{fault}"})

           tried = Enum.join(answer["tried"], ", ")
           note = "PyTorch #{answer["torch"]} on #{answer["name"]}: #{tried} come out right"
           {:ok, %{proof: TorchPlan.record(plan, answer["torch"], fault)}, note}

         {:ok, %{"error" => error}} ->
           {:error, unusable("PyTorch was installed but does not work", [error], run)}

         {:error, failure} ->
           {:error, failure}
       end
     end}
  end

  # Without it a language is read less well. That is reported, but it is not a failure. The next setup that asks for the
  # language tries again.
  defp fetch_data(profile, run) do
    {:language, "fetching #{profile.title} besides its package",
     fn ->
       missing = %{languages: run.languages -- [profile.language]}

       case script(profile.data, [], run) do
         {:ok, %{"error" => nil, "note" => note}} -> {:ok, %{}, note}
         {:ok, %{"error" => error}} -> {:ok, missing, error}
         {:error, failure} -> {:ok, missing, failure.output |> Subprocess.last_lines(1) |> Enum.join()}
       end
     end}
  end

  defp script(name, arguments, run) do
    arguments = ["-I", PackageProfile.script(name) | arguments]
    Subprocess.answer(Python.program(run.venv), arguments, timeout: @check_timeout, tool: "Python")
  end

  defp record(%{interpreter: interpreter, found: found} = run) do
    now = DateTime.utc_now() |> DateTime.truncate(:second) |> DateTime.to_iso8601()
    before = run.before || %{}

    manifest = %{
      "chatterbex" => Configuration.version(),
      "python" => %{
        "version" => interpreter.version,
        "executable" => Python.program(run.venv),
        "base_executable" => interpreter.base_executable,
        "implementation" => interpreter.implementation,
        "requested" => run.python
      },
      "libpython" => interpreter.libpython,
      "profiles" => Map.new(run.wanted, &{&1.name, entry(&1, before["profiles"][&1.name], now)}),
      "packages" => found["packages"],
      "bytes" => found["bytes"],
      "torch" => run.proof,
      "models" => Enum.sort(Enum.uniq((before["models"] || []) ++ run.models)),
      "languages" => Enum.sort(Enum.uniq((before["languages"] || []) ++ run.languages))
    }

    with :ok <- EnvironmentManifest.write(run.venv, manifest), {:ok, python} <- SetupRun.find(run) do
      {:ok, %{environment: python, changed: true}}
    else
      {:error, reason} when is_atom(reason) -> {:error, SetupFailure.unwritable(run.venv, reason, run)}
      {:error, error} -> {:error, error}
    end
  end

  defp entry(profile, before, now) do
    sha = PackageProfile.lock_sha256(profile)
    if before["lock_sha256"] == sha, do: before, else: %{"lock_sha256" => sha, "installed_at" => now}
  end
end
