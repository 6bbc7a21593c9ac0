defmodule Chatterbex.Setup.Install do
  @moduledoc false
  # Step 3: the packages. Locked packages are checked file by file. A line reports each package that is not locked.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Failure, Manifest, Profile, Request, Step, Torch, Uv}

  @doc """
  Installs the requested packages. The returned plan has the build of PyTorch that was available.
  """
  @spec run(Uv.t(), Manifest.t() | nil, Request.t()) :: {:ok, Torch.t() | nil} | {:error, Error.t()}
  def run(uv, manifest, request) do
    titles = Enum.map_join(request.wanted, ", ", & &1.title)

    Step.run(request.report, "installing #{titles} with uv #{uv.version}", fn ->
      case packages(uv, Torch.recorded(manifest), request) do
        {:ok, plan, output} -> {:ok, plan, outcome(output)}
        {:error, failure} -> {:error, Failure.tool("installing the packages", "uv", failure, request)}
      end
    end)
  end

  @locked [:locked, :cuda12]

  defp packages(uv, before, %{plan: plan} = request) do
    build = if plan != nil and plan.build in @locked, do: plan.build
    # For uv, 2.15.0+cpu satisfies 2.15.0.
    options = if build && before && before.build not in @locked, do: [reinstall: ["torch"]], else: []

    with {:ok, output} <- locked(uv, build, options, request),
         {:ok, plan, more} <- torch(uv, plan, before, request),
         do: {:ok, plan, output <> more}
  end

  defp locked(uv, build, options, request) do
    locks = Enum.flat_map(request.wanted, &Profile.lock_paths(&1, build))

    with {:ok, _output} <- remove_left_over(uv, build, locks, request),
         do: or_offline(request, &Uv.install(uv, program(request), locks, options ++ &1))
  end

  # NVIDIA's packages for another CUDA version have files of the same names, and gigabytes of them. An earlier version
  # of Chatterbex installed torchaudio, which works with only one release of PyTorch.
  defp remove_left_over(_uv, nil, _locks, _request), do: {:ok, ""}

  defp remove_left_over(uv, _build, locks, request) do
    wanted = Enum.map_join(locks, "\n", &File.read!/1)

    case Enum.reject(beside_torch(request.venv), &(wanted =~ ~r/^#{Regex.escape(&1)}==/m)) do
      [] -> {:ok, ""}
      others -> Uv.uninstall(uv, program(request), others)
    end
  end

  defp beside_torch(venv) do
    for path <- Path.wildcard(Path.join(venv, "lib/python*/site-packages/{nvidia_*,torchaudio-*}.dist-info")),
        [name | _version] = path |> Path.basename() |> String.split("-"),
        do: String.replace(name, "_", "-")
  end

  defp torch(_uv, nil, _before, _request), do: {:ok, nil, ""}
  defp torch(_uv, %{build: build} = plan, _before, _request) when build in @locked, do: {:ok, plan, ""}

  defp torch(uv, %{build: :chosen, version: version} = plan, _before, request) do
    Step.note(
      request.report,
      "PyTorch #{version} is not the locked one: it is taken from the index as it is there"
    )

    # It may need packages that no lock has. All other packages of the environment stay as they are.
    overrides = request.wanted |> hd() |> Profile.lock_paths() |> Enum.flat_map(&["--override", &1])

    with {:ok, output} <- unlocked(uv, ["torch==#{version}" | overrides], request),
         do: {:ok, plan, output}
  end

  defp torch(uv, %{build: :cpu_only} = plan, before, request) do
    version = Profile.torch_version(request.profiles) <> "+cpu"

    # The lock may have several versions, each for some Pythons.
    requirements =
      for {version, marker} <- Profile.torch_requirements(request.profiles),
          do: String.trim_trailing("torch==#{version}+cpu ; #{marker}", " ; ")

    case unlocked(uv, requirements ++ ["--no-deps"], request) do
      {:ok, output} ->
        Step.note(
          request.report,
          "PyTorch #{version} is not in the lock: it is taken from the index as it is there"
        )

        {:ok, plan, output}

      {:error, failure} when before != nil and before.build == :cpu_only ->
        {:error, failure}

      {:error, failure} ->
        Step.note(request.report, "#{no_cpu_only(version, failure)}: taking the one with NVIDIA's libraries")
        with {:ok, output} <- locked(uv, :locked, [], request), do: {:ok, %{plan | build: :locked}, output}
    end
  end

  defp no_cpu_only(version, failure) do
    if Failure.network?(failure),
      do: "PyTorch #{version} could not be fetched",
      else: "the index has no PyTorch #{version} (PyTorch's own has; UV_TORCH_BACKEND=cpu lets uv look there)"
  end

  defp unlocked(uv, arguments, request),
    do: or_offline(request, &Uv.install_unlocked(uv, program(request), arguments, &1))

  # Cached packages need no network, but uv asks the index first.
  defp or_offline(request, install) do
    settings = [
      timeout: request.wanted |> Enum.map(& &1.timeout) |> Enum.max(),
      on_line: &download_line(&1, request.report),
      pip_files: request.machine.pip_files
    ]

    with {:error, failure} <- install.(settings) do
      again = if Failure.network?(failure), do: install.([{:offline, true} | settings])
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

  defp program(request), do: Python.program(request.venv)
end
