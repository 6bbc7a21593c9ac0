defmodule Chatterbex.Doctor.Environment do
  @moduledoc false
  # Python, its shared library, and the packages.

  import Chatterbex.Doctor.CheckResult

  alias Chatterbex.{Doctor, Error, JSON, Native, Python}
  alias Chatterbex.Setup.{HostMachine, PackageProfile, PythonInterpreter, Subprocess, TorchPlan}

  def python(context) do
    venv = Python.venv(context.home)

    case Python.find(home: context.home) do
      {:ok, python} ->
        {[interpreter(python, context)], %{context | python: python}}

      {:error, %Error{message: message, details: details}} ->
        status = if File.dir?(venv), do: :failed, else: :not_set_up
        {[new(:python, "Python", status, without_command(message), details.command, details)], context}
    end
  end

  # Runs Python, which opens its own library in that process.
  defp interpreter(python, context) do
    base = python.manifest["python"]["base_executable"]
    details = %{program: python.program, base: base, version: python.version}

    case PythonInterpreter.examine(python.program, HostMachine.this()) do
      {:ok, %{version: version}} ->
        new(
          :python,
          "Python",
          :ok,
          "#{version} in #{Path.dirname(Path.dirname(python.program))}, made with #{base}",
          nil,
          details
        )

      {:error, %{why: why}} ->
        new(:python, "Python", :failed, "#{python.program}: #{why}", force(context), details)
    end
  end

  @doc """
  Opens Python's library in this VM, and with it the library of the engine.
  """
  def libpython(%{python: nil} = context), do: {[], context}

  def libpython(context) do
    path = context.python.libpython

    case Native.LibPython.open(path) do
      {:ok, %{version: version}} ->
        opened = new(:python, "libpython", :ok, "#{path} opens, Python #{version}", nil, %{path: path})
        {[opened, Doctor.Platform.library(:chatterbex, Native.load())], context}

      {:error, {_reason, message, details}} ->
        {[new(:python, "libpython", :failed, message, force(context), Map.put(details, :path, path))],
         context}
    end
  end

  @doc """
  Whether the installed packages are complete, and those that the setup installed.
  """
  def packages(%{python: nil} = context), do: {[], context}

  def packages(context) do
    installed = context.python.manifest["packages"]

    check =
      case script(["check"], context) do
        {:ok, %{"packages" => found, "broken" => broken}} -> compare(installed, found, broken, context)
        {:error, said} -> new(:packages, "packages", :failed, said, force(context))
      end

    {[check], context}
  end

  defp compare(installed, found, broken, context) do
    changed =
      for {name, version} <- Enum.sort(installed), found[name] != version do
        if found[name], do: "#{name} is #{found[name]}, not #{version}", else: "#{name} is missing"
      end

    case changed ++ for({name, file} <- Enum.sort(broken), do: "#{name} lacks #{file}") do
      [] ->
        new(:packages, "packages", :ok, "#{map_size(installed)} packages, all their files are there", nil, %{
          packages: found
        })

      problems ->
        message = "not as they were installed: #{some(problems)}"
        new(:packages, "packages", :failed, message, force(context), %{problems: problems})
    end
  end

  defp some(problems) do
    shown = problems |> Enum.take(5) |> Enum.join(", ")
    if length(problems) > 5, do: "#{shown} and #{length(problems) - 5} more", else: shown
  end

  def voice(%{python: nil} = context), do: {[], context}
  def voice(context), do: {[profile("hibari", "built-in voice", context)], context}

  @doc """
  PyTorch and the other packages of the Chatterbox models.
  """
  def torch(%{python: nil} = context), do: {[], context}

  def torch(%{python: %{manifest: manifest}} = context) do
    if is_map_key(manifest["profiles"], "torch") do
      check = profile("torch", "PyTorch", context)
      {[check], %{context | torch: check.status != :failed}}
    else
      device = TorchPlan.fitting_device(HostMachine.this())
      message = "the Chatterbox models need it; the built-in voice does not"
      {[new(:packages, "PyTorch", :not_set_up, message, setup(context, device: device))], context}
    end
  end

  defp profile(name, title, context) do
    profile = Enum.find(PackageProfile.all(), &(&1.name == name))

    if PackageProfile.current?(profile, context.python.manifest) do
      case script(["check" | profile.imports], context) do
        {:ok, answer} -> imported(profile, title, answer, context)
        {:error, said} -> new(:packages, title, :failed, said, force(context))
      end
    else
      message = "its packages are those of another version of Chatterbex"
      new(:packages, title, :failed, message, setup(context))
    end
  end

  defp imported(profile, title, answer, context) do
    failed =
      for module <- profile.imports,
          result = answer["imports"][module],
          not is_number(result),
          do: "#{module} does not load: #{result}"

    case failed do
      [] ->
        seconds = profile.imports |> Enum.map(&answer["imports"][&1]) |> Enum.sum()
        names = Enum.map_join(profile.imports, ", ", &PackageProfile.named(&1, answer["packages"]))

        new(
          :packages,
          title,
          :ok,
          "#{names} load in #{duration(seconds)}",
          nil,
          about(profile, answer, context)
        )

      failed ->
        new(
          :packages,
          title,
          :failed,
          Enum.join(failed, "; "),
          force(context),
          about(profile, answer, context)
        )
    end
  end

  defp about(profile, answer, context) do
    torch = TorchPlan.recorded(context.python.manifest)
    device = if profile.name == "torch" and torch != nil, do: %{set_up_for: torch.device}, else: %{}
    Map.merge(device, %{imports: answer["imports"]})
  end

  defp script(arguments, context) do
    program = context.python.program

    case Subprocess.run(program, ["-I", PackageProfile.script("environment.py") | arguments],
           timeout: context.timeout
         ) do
      {:ok, output} ->
        with {:error, _no_json} <- output |> Subprocess.last_lines(1) |> List.first("") |> JSON.decode(),
             do: {:error, "Python gave no answer: #{last(output)}"}

      {:error, %{why: {:timeout, ms}}} ->
        {:error, "Python had not ended after #{div(ms, 1000)} s"}

      {:error, %{why: {:exit, status}, output: output}} ->
        how =
          if status > 128, do: "was killed by signal #{status - 128}", else: "ended with exit code #{status}"

        {:error, "Python #{how}: #{last(output)}"}
    end
  end

  defp last(output),
    do: output |> Subprocess.last_lines(1) |> List.first("it said nothing") |> String.slice(0, 300)

  defp setup(context, options \\ []), do: Python.setup_command(context.home, options)

  # A plain setup trusts its manifest, so only --force repairs this.
  defp force(context), do: setup(context, force: true)

  defp without_command(message), do: message |> String.split(" Run: ") |> hd()
end
