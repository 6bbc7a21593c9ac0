defmodule Chatterbex.Setup.Build do
  @moduledoc false
  # Steps 2 to 5: the environment, the packages, the proof, the manifest.

  alias Chatterbex.{Configuration, Error, JSON, Python, Terminal}

  alias Chatterbex.Setup.{
    Command,
    Failure,
    Install,
    Interpreter,
    Manifest,
    Place,
    Profile,
    Request,
    Step,
    Torch,
    Uv
  }

  @check_timeout :timer.minutes(10)

  @doc """
  Builds what is missing, step by step, and writes the manifest last.
  """
  @spec run(Place.state(), Interpreter.t(), Uv.t() | nil, Request.t()) ::
          {:ok, Python.t()} | {:error, Error.t()}
  def run(state, interpreter, uv, request) do
    uv = still_there(uv, request)

    with :ok <- begin(request),
         {:ok, uv} <- make_environment(state, interpreter, uv, request),
         :ok <- repair(state, request),
         {:ok, plan} <- Install.run(uv, state.manifest, request),
         request = %{request | plan: plan},
         {:ok, found} <- check_environment(request),
         {:ok, torch} <- prove(request),
         request = %{request | languages: fetch_data(request)},
         do: write_manifest(found, torch, state, interpreter, request)
  end

  defp begin(%{venv: venv} = request) do
    with {:error, reason} <- Manifest.begin(venv),
         do: {:error, Failure.unwritable(venv, reason, request)}
  end

  defp make_environment(%{reuse: true}, interpreter, uv, request), do: ensure_uv(interpreter, uv, request)

  defp make_environment(_state, interpreter, %Uv{} = uv, request) do
    Step.run(request.report, "making an environment in #{request.venv}", fn ->
      case Uv.venv(uv, interpreter.base_executable, request.venv) do
        :ok -> {:ok, keep_uv(uv, request), "made with uv #{uv.version}"}
        {:error, failure} -> {:error, Failure.tool("making the environment", "uv", failure, request)}
      end
    end)
  end

  defp make_environment(_state, interpreter, nil, request), do: ensure_uv(interpreter, nil, request)

  defp ensure_uv(_interpreter, %Uv{} = uv, _request), do: {:ok, uv}

  defp ensure_uv(interpreter, nil, request) do
    Step.run(request.report, "making an environment in #{request.venv} and putting uv into it", fn ->
      case Uv.bootstrap(interpreter.base_executable, request.venv) do
        {:ok, uv} -> {:ok, uv, "made with Python's venv; uv #{uv.version} installed with pip"}
        {:error, {tool, failure}} -> {:error, Failure.tool("installing uv", tool, failure, request)}
      end
    end)
  end

  # Moves uv from the old environment to the new one: it may be the only uv on the machine.
  defp keep_uv(uv, request) do
    if String.starts_with?(uv.path, Place.aside(request.venv) <> "/") do
      path = Path.join(request.venv, "bin/uv")
      if File.cp(uv.path, path) == :ok, do: %{uv | path: path}, else: uv
    else
      uv
    end
  end

  # An installer believes that a package is installed even if some of its files are missing.
  defp repair(%{reuse: true}, request) do
    Step.run(request.report, "continuing with the environment in #{request.venv}", fn ->
      case script("environment.py", ["repair"], request) do
        {:ok, %{"repaired" => []}} ->
          {:ok, :repaired, "nothing is broken"}

        {:ok, %{"repaired" => names}} ->
          {:ok, :repaired, "to be installed again: #{Enum.join(names, ", ")}"}

        {:error, failure} ->
          {:error, Failure.tool("looking at the environment", "Python", failure, request)}
      end
    end)
    |> ok()
  end

  defp repair(_new, _request), do: :ok

  defp check_environment(request) do
    modules = request.wanted |> Enum.flat_map(& &1.imports) |> Enum.uniq()

    Step.run(request.report, "checking that #{Enum.join(modules, ", ")} load", fn ->
      case script("environment.py", ["check" | modules], request) do
        {:ok, answer} ->
          checked(answer, modules, request)

        {:error, failure} ->
          {:error, Failure.tool("checking the environment", "Python", failure, request)}
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
        names = Enum.map_join(modules, ", ", &Profile.named(&1, answer["packages"]))
        {:ok, answer, "they do: #{names}; all packages together take #{Terminal.bytes(answer["bytes"])}"}

      problems ->
        lines = Enum.map_join(problems, "\n", &"  | #{&1}")

        {:error,
         Failure.error(
           "the packages were installed but do not work:\n#{lines}",
           "a library of the system may be missing, as named above; --force installs everything again.",
           request,
           %{problems: problems}
         )}
    end
  end

  # PyTorch must work on the CPU. If a device does not work, the models run on the CPU, and a line says so.
  defp prove(%{plan: nil}), do: {:ok, nil}

  defp prove(%{plan: plan} = request) do
    proof = Enum.find_value(request.wanted, & &1.proof)

    Step.run(request.report, "trying PyTorch on #{Torch.name(plan.device)}", fn ->
      case script(proof, [Atom.to_string(plan.device)], request) do
        {:ok, %{"error" => nil} = answer} ->
          {:ok, Torch.record(plan, answer["torch"], answer["fault"]), proved(answer, request)}

        {:ok, %{"error" => error}} ->
          {:error, unusable(error, request)}

        {:error, failure} ->
          {:error, Failure.tool("trying PyTorch", "Python", failure, request)}
      end
    end)
  end

  defp proved(%{"fault" => nil} = answer, _request),
    do: "PyTorch #{answer["torch"]} on #{answer["name"]}: #{Enum.join(answer["tried"], ", ")} come out right"

  defp proved(answer, request) do
    Step.note(request.report, "it does not work there, so the models will run on the CPU: #{answer["fault"]}")
    proved(%{answer | "fault" => nil}, request)
  end

  defp unusable(error, request) do
    Failure.error(
      "PyTorch was installed but does not work:\n  | #{error}",
      "a library of the system may be missing, as named above; --torch installs another version, --force installs " <>
        "everything again.",
      request,
      %{problems: [error]}
    )
  end

  # Without it a language is read less well. That is reported, but it is not a failure. The next setup that asks for the
  # language tries again.
  defp fetch_data(request) do
    missing =
      for %{data: data} = profile when data != nil <- request.wanted,
          not fetched?(profile, request),
          do: profile.language

    request.languages -- missing
  end

  defp fetched?(profile, request) do
    title = "fetching #{profile.title} besides its package"

    {:ok, fetched?} =
      Step.run(request.report, title, fn ->
        case script(profile.data, [], request) do
          {:ok, %{"error" => nil, "note" => note}} -> {:ok, true, note}
          {:ok, %{"error" => error}} -> {:ok, false, error}
          {:error, failure} -> {:ok, false, failure.output |> Command.last_lines(1) |> Enum.join()}
        end
      end)

    fetched?
  end

  defp script(name, arguments, request) do
    program = Python.program(request.venv)

    with {:ok, output} <-
           Command.run(program, ["-I", Profile.script(name) | arguments], timeout: @check_timeout) do
      case JSON.decode(output |> Command.last_lines(1) |> List.first("")) do
        {:ok, %{} = answer} -> {:ok, answer}
        _no_answer -> {:error, %{why: {:exit, 1}, output: output}}
      end
    end
  end

  defp write_manifest(found, torch, state, interpreter, request) do
    now = DateTime.utc_now() |> DateTime.truncate(:second) |> DateTime.to_iso8601()
    before = state.manifest || %{}
    installed = before["profiles"] || %{}

    manifest = %{
      "chatterbex" => Configuration.version(),
      "python" => %{
        "version" => interpreter.version,
        "executable" => Python.program(request.venv),
        "base_executable" => interpreter.base_executable,
        "implementation" => interpreter.implementation,
        "requested" => request.python
      },
      "libpython" => interpreter.libpython,
      "profiles" => Map.new(request.wanted, &{&1.name, entry(&1, installed[&1.name], now)}),
      "packages" => found["packages"],
      "bytes" => found["bytes"],
      "torch" => torch,
      "models" => Enum.sort(Enum.uniq((before["models"] || []) ++ request.models)),
      "languages" => Enum.sort(Enum.uniq((before["languages"] || []) ++ request.languages))
    }

    with :ok <- Manifest.write(request.venv, manifest), {:ok, python} <- Request.find(request) do
      {:ok, python}
    else
      {:error, reason} when is_atom(reason) ->
        {:error, Failure.unwritable(request.venv, reason, request)}

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

  # The program may have been in the old environment.
  defp still_there(nil, _request), do: nil

  defp still_there(uv, request) do
    if File.exists?(uv.path), do: uv, else: Uv.find(request.machine, Place.tool_folders(request.venv))
  end

  defp ok({:ok, _value}), do: :ok
  defp ok({:error, error}), do: {:error, error}
end
