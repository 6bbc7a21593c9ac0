defmodule Chatterbex.Setup.Build do
  @moduledoc false
  # Steps 2 to 5: the environment, the packages, the proof, the manifest.

  alias Chatterbex.{Error, JSON, Python}
  alias Chatterbex.Setup.{Command, Failure, Interpreter, Manifest, Place, Profile, Request, Step, Uv}

  @check_timeout :timer.minutes(10)

  @doc """
  Builds what is missing, step by step, and writes the manifest last.
  """
  @spec run(Place.state(), Interpreter.t(), Uv.t() | nil, Request.t()) ::
          {:ok, Python.t()} | {:error, Error.t()}
  def run(state, interpreter, uv, request) do
    uv = still_there(uv, request)
    profiles = Profile.wanted(request.profiles, request.device, state.manifest)

    with :ok <- begin(request),
         {:ok, uv} <- make_environment(state, interpreter, uv, request),
         :ok <- repair(state, request),
         :ok <- install(profiles, uv, request),
         {:ok, packages} <- check_environment(profiles, request),
         do: write_manifest(profiles, packages, state, interpreter, request)
  end

  defp begin(%{venv: venv} = request) do
    with {:error, reason} <- Manifest.begin(venv),
         do: {:error, Failure.unwritable(venv, reason, request.home)}
  end

  defp make_environment(%{reuse: true}, interpreter, uv, request), do: ensure_uv(interpreter, uv, request)

  defp make_environment(_state, interpreter, %Uv{} = uv, request) do
    Step.run(request.report, "making an environment in #{request.venv}", fn ->
      case Uv.venv(uv, interpreter.base_executable, request.venv) do
        :ok -> {:ok, keep_uv(uv, request), "made with uv #{uv.version}"}
        {:error, failure} -> {:error, Failure.tool("making the environment", "uv", failure, request.home)}
      end
    end)
  end

  defp make_environment(_state, interpreter, nil, request), do: ensure_uv(interpreter, nil, request)

  defp ensure_uv(_interpreter, %Uv{} = uv, _request), do: {:ok, uv}

  defp ensure_uv(interpreter, nil, request) do
    Step.run(request.report, "making an environment in #{request.venv} and putting uv into it", fn ->
      case Uv.bootstrap(interpreter.base_executable, request.venv) do
        {:ok, uv} -> {:ok, uv, "made with Python's venv; uv #{uv.version} installed with pip"}
        {:error, {tool, failure}} -> {:error, Failure.tool("installing uv", tool, failure, request.home)}
      end
    end)
  end

  # The uv of the environment that was put aside goes over to the new one: it may be the only one there is.
  defp keep_uv(uv, request) do
    if String.starts_with?(uv.path, Place.aside(request.venv) <> "/") do
      path = Path.join(request.venv, "bin/uv")
      if File.cp(uv.path, path) == :ok, do: %{uv | path: path}, else: uv
    else
      uv
    end
  end

  # An installer takes a package for installed whose files were half copied, or removed since.
  defp repair(%{reuse: true}, request) do
    Step.run(request.report, "going on with what is in #{request.venv}", fn ->
      case environment_script(["repair"], request) do
        {:ok, %{"repaired" => []}} ->
          {:ok, :repaired, "nothing in it is broken"}

        {:ok, %{"repaired" => names}} ->
          {:ok, :repaired, "to be installed again: #{Enum.join(names, ", ")}"}

        {:error, failure} ->
          {:error, Failure.tool("looking at the environment", "Python", failure, request.home)}
      end
    end)
    |> ok()
  end

  defp repair(_new, _request), do: :ok

  defp install(profiles, uv, request) do
    locks = Enum.map(profiles, &Profile.lock_path/1)
    titles = Enum.map_join(profiles, " and ", & &1.title)

    Step.run(request.report, "installing #{titles} with uv #{uv.version}", fn ->
      settings = [
        timeout: profiles |> Enum.map(& &1.timeout) |> Enum.max(),
        on_line: &download_line(&1, request.report),
        pip_files: request.machine.pip_files
      ]

      case install_or_offline(uv, Python.program(request.venv), locks, settings) do
        {:ok, output} -> {:ok, :installed, outcome(output)}
        {:error, failure} -> {:error, Failure.tool("installing the packages", "uv", failure, request.home)}
      end
    end)
    |> ok()
  end

  # What the cache holds needs no network, but uv asks the index first.
  defp install_or_offline(uv, program, locks, settings) do
    with {:error, failure} <- Uv.install(uv, program, locks, settings) do
      again = if Failure.network?(failure), do: Uv.install(uv, program, locks, [{:offline, true} | settings])
      if match?({:ok, _output}, again), do: again, else: {:error, failure}
    end
  end

  defp download_line(line, report) do
    if line =~ ~r/^\s*(Downloading|Downloaded|Building) /, do: Step.note(report, String.trim(line))
  end

  defp outcome(output) do
    added = output |> String.split("\n") |> Enum.count(&(&1 =~ ~r/^ \+ /))
    if added == 0, do: "all packages were there", else: "#{added} packages installed"
  end

  defp check_environment(profiles, request) do
    modules = profiles |> Enum.flat_map(& &1.imports) |> Enum.uniq()

    Step.run(request.report, "checking that #{Enum.join(modules, ", ")} load", fn ->
      case environment_script(["check" | modules], request) do
        {:ok, answer} ->
          checked(answer, modules, request)

        {:error, failure} ->
          {:error, Failure.tool("checking the environment", "Python", failure, request.home)}
      end
    end)
  end

  defp checked(answer, modules, request) do
    failed =
      for module <- modules,
          not is_number(answer["imports"][module]),
          do: "#{module}: #{answer["imports"][module]}"

    broken = for {name, file} <- answer["broken"] || %{}, do: "#{name}: #{file} is missing"

    case failed ++ broken do
      [] ->
        {:ok, answer["packages"], "they do: #{Enum.map_join(modules, ", ", &named(&1, answer["packages"]))}"}

      problems ->
        lines = Enum.map_join(problems, "\n", &"  | #{&1}")

        {:error,
         Failure.error(
           "the packages were installed and do not work:\n#{lines}",
           "a library of the system may be missing, as named above; --force installs everything again.",
           request.home,
           %{problems: problems}
         )}
    end
  end

  defp named(module, packages) do
    case packages[module] do
      nil -> module
      version -> "#{module} #{version}"
    end
  end

  defp environment_script(arguments, request) do
    script = Profile.script("environment.py")
    program = Python.program(request.venv)

    with {:ok, output} <- Command.run(program, ["-I", script | arguments], timeout: @check_timeout) do
      case JSON.decode(output |> Command.last_lines(1) |> List.first("")) do
        {:ok, %{} = answer} -> {:ok, answer}
        _no_answer -> {:error, %{why: {:exit, 1}, output: output}}
      end
    end
  end

  defp write_manifest(profiles, packages, state, interpreter, request) do
    now = DateTime.utc_now() |> DateTime.truncate(:second) |> DateTime.to_iso8601()
    before = (state.manifest || %{})["profiles"] || %{}

    manifest = %{
      "chatterbex" => :chatterbex |> Application.spec(:vsn) |> to_string(),
      "python" => %{
        "version" => interpreter.version,
        "executable" => Python.program(request.venv),
        "base_executable" => interpreter.base_executable,
        "implementation" => interpreter.implementation,
        "requested" => request.python
      },
      "libpython" => interpreter.libpython,
      "profiles" => Map.new(profiles, &{&1.name, entry(&1, before[&1.name], now)}),
      "packages" => packages
    }

    with :ok <- Manifest.write(request.venv, manifest), {:ok, python} <- Request.find(request) do
      {:ok, python}
    else
      {:error, reason} when is_atom(reason) ->
        {:error, Failure.unwritable(request.venv, reason, request.home)}

      {:error, error} ->
        {:error, error}
    end
  end

  defp entry(profile, before, now) do
    case {Profile.lock_sha256(profile), before} do
      {sha, %{"lock_sha256" => sha} = unchanged} -> unchanged
      {sha, _new_or_changed} -> %{"lock_sha256" => sha, "installed_at" => now}
    end
  end

  # It may have been in the environment that was put aside or removed.
  defp still_there(nil, _request), do: nil

  defp still_there(uv, request) do
    if File.exists?(uv.path), do: uv, else: Uv.find(request.machine, Place.tool_folders(request.venv))
  end

  defp ok({:ok, _value}), do: :ok
  defp ok({:error, error}), do: {:error, error}
end
