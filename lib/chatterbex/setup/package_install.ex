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

  # With a PyTorch from a lock, the locks have all packages. What another build needed is removed: NVIDIA's packages for
  # another CUDA version have files of the same names, and gigabytes of them.
  defp locked(run, build, options) do
    locks = Enum.flat_map(run.wanted, &PackageProfile.lock_paths(&1, build))
    Uv.install(run.uv, Python.program(run.venv), locks, [{:exact, build != nil} | options])
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
