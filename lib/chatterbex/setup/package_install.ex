defmodule Chatterbex.Setup.PackageInstall do
  @moduledoc false
  # Installs the packages. Those in locks are checked by their hashes; for PyTorch the plan says whether it is one of them.
  # A line reports a PyTorch that is not.

  alias Chatterbex.Python
  alias Chatterbex.Setup.{PackageProfile, SetupFailure, SetupRun, Subprocess, TorchPlan, Uv}

  @locked [:locked, :cuda12]

  # Over a slow network.
  @timeout :timer.hours(2)

  @doc "Installs what is wanted. Returns the plan with the build of PyTorch that was available, and the output of uv."
  @spec run(SetupRun.t(), (String.t() -> term)) ::
          {:ok, TorchPlan.t() | nil, String.t()} | {:error, Subprocess.failure()}
  def run(%{plan: plan} = run, progress) do
    before = TorchPlan.recorded(run.before)
    build = if plan != nil and plan.build in @locked, do: plan.build
    # For uv, 2.15.0+cpu satisfies 2.15.0.
    reinstall = if build && before && before.build not in @locked, do: ["torch"], else: []
    options = [timeout: @timeout, on_output: progress, pip_files: run.machine.pip_files]

    with {:ok, output} <- locked(run, build, [{:reinstall, reinstall} | options]),
         {:ok, plan, more} <- torch(plan, before, run, options),
         do: {:ok, plan, output <> more}
  end

  defp locked(run, build, options) do
    locks = Enum.flat_map(run.wanted, &PackageProfile.lock_paths(&1, build))

    with {:ok, _output} <- if(build, do: remove_left_over(run, locks), else: {:ok, ""}),
         do: Uv.install(run.uv, Python.program(run.venv), locks, options)
  end

  # NVIDIA's packages for another CUDA version have files of the same names, and gigabytes of them. An earlier version
  # of Chatterbex installed torchaudio, which works with only one release of PyTorch.
  defp remove_left_over(run, locks) do
    wanted = Enum.map_join(locks, "\n", &File.read!/1)
    pattern = Path.join(run.venv, "lib/python*/site-packages/{nvidia_*,torchaudio-*}.dist-info")
    installed = for path <- Path.wildcard(pattern), do: path |> Path.basename() |> String.split("-") |> hd()

    case installed |> Enum.map(&String.replace(&1, "_", "-")) |> Enum.reject(&(wanted =~ ~r/^#{&1}==/m)) do
      [] -> {:ok, ""}
      others -> Uv.uninstall(run.uv, Python.program(run.venv), others)
    end
  end

  defp torch(nil, _before, _run, _options), do: {:ok, nil, ""}
  defp torch(%{build: build} = plan, _before, _run, _options) when build in @locked, do: {:ok, plan, ""}

  # It may need packages that no lock has. All other packages of the environment stay as they are.
  defp torch(%{build: :chosen, version: version} = plan, _before, run, options) do
    line(run, "PyTorch #{version} is not the locked one: it is taken from the index as it is there")
    overrides = run.wanted |> hd() |> PackageProfile.lock_paths() |> Enum.flat_map(&["--override", &1])
    with {:ok, output} <- unlocked(run, ["torch==#{version}" | overrides], options), do: {:ok, plan, output}
  end

  defp torch(%{build: :cpu_only} = plan, before, run, options) do
    version = PackageProfile.torch_version(run.profiles) <> "+cpu"

    # The lock may have several versions, each for some Pythons.
    requirements =
      for {version, marker} <- PackageProfile.torch_requirements(run.profiles),
          do: String.trim_trailing("torch==#{version}+cpu ; #{marker}", " ; ")

    case unlocked(run, requirements ++ ["--no-deps"], options) do
      {:ok, output} ->
        line(run, "PyTorch #{version} is not in the lock: it is taken from the index as it is there")
        {:ok, plan, output}

      {:error, failure} when before != nil and before.build == :cpu_only ->
        {:error, failure}

      {:error, failure} ->
        why =
          if SetupFailure.network?(failure),
            do: "PyTorch #{version} could not be fetched",
            else:
              "the index has no PyTorch #{version} (PyTorch's own has; UV_TORCH_BACKEND=cpu lets uv look there)"

        line(run, "#{why}: taking the one with NVIDIA's libraries")
        with {:ok, output} <- locked(run, :locked, options), do: {:ok, %{plan | build: :locked}, output}
    end
  end

  defp unlocked(run, arguments, options),
    do: Uv.install_unlocked(run.uv, Python.program(run.venv), arguments, options)

  defp line(run, text), do: run.report.({:line, text})
end
