defmodule Chatterbex.Setup.Search do
  @moduledoc false
  # Step 1: a Python that can be embedded, from the environment that is there, uv, the system or a download.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Command, Failure, Interpreter, Machine, Manifest, Place, Profile, Request, Step, Uv}

  # What uv downloads if the machine has no Python that fits.
  @download "3.12"

  @doc """
  The Python to embed, and the uv to install with (`nil` if there is none yet). One step, reported.
  """
  @spec run(Request.t()) :: {:ok, {Interpreter.t(), Uv.t() | nil}} | {:error, Error.t()}
  def run(request) do
    title = "looking for Python #{request.python || Interpreter.supported()} with a shared library"

    Step.run(request.report, title, fn ->
      uv = Uv.find(request.machine, Place.tool_folders(request.venv))

      with {:ok, interpreter, uv} <- search(request, uv) do
        note = "Python #{interpreter.version}, #{interpreter.base_executable}, with #{interpreter.libpython}"
        {:ok, {interpreter, uv}, note}
      end
    end)
  end

  defp search(request, uv) do
    case existing_python(request) do
      {:ok, interpreter} -> {:ok, interpreter, uv}
      :search -> search(request, uv, Interpreter.version_request(request.python))
    end
  end

  defp search(request, uv, version) do
    if version == nil or version in Profile.pythons(),
      do: search_for(request, uv, version),
      else: no_python(request, [], ["Python #{version} cannot be used: only #{Interpreter.supported()} can"])
  end

  defp search_for(request, uv, version) do
    demands = [venv: is_nil(uv), version: version]

    case request |> candidates(uv, version) |> Interpreter.first(request.machine, demands) do
      {:ok, interpreter, rejected} ->
        Enum.each(rejected, &Step.note(request.report, "skipped #{&1.path}: #{&1.why}"))
        {:ok, interpreter, uv}

      {:error, []} when is_binary(request.python) and is_nil(version) ->
        no_python(request, [], ["#{request.python}: there is no such program on PATH"])

      # A Python that the user named is used or refused; no other one is used instead.
      {:error, rejected} when is_binary(request.python) and is_nil(version) ->
        no_python(request, rejected, [])

      {:error, rejected} ->
        download(request, uv, rejected, version || @download)
    end
  end

  # Continues with the environment that exists.
  defp existing_python(%{force: false, python: nil} = request) do
    program = Python.program(request.venv)

    with true <- Manifest.ours?(request.venv) and Machine.executable?(program),
         {:ok, interpreter} <- Interpreter.examine(program, request.machine) do
      {:ok, interpreter}
    else
      _none_or_broken -> :search
    end
  end

  defp existing_python(_request), do: :search

  defp candidates(%{python: given, machine: machine}, _uv, nil) when is_binary(given),
    do: Interpreter.named(given, machine)

  defp candidates(%{machine: machine}, uv, version),
    do: Stream.concat(Uv.pythons(uv, version), Interpreter.candidates(machine))

  defp download(request, uv, rejected, version) do
    with true <- Uv.may_download?(),
         {:ok, uv} <- uv_for_download(request, uv, rejected),
         _told = Step.note(request.report, "none will do here; downloading Python #{version} with uv"),
         :ok <- Uv.download_python(uv, version),
         found = uv |> Uv.pythons(version) |> Interpreter.first(request.machine, version: version),
         {:ok, interpreter, _rejected} <- found do
      {:ok, interpreter, uv}
    else
      false -> no_python(request, rejected, ["uv may not download one: UV_PYTHON_DOWNLOADS forbids it"])
      {:error, %{output: output}} -> no_python(request, rejected, ["uv python install: #{last_line(output)}"])
      {:error, downloaded} when is_list(downloaded) -> no_python(request, rejected ++ downloaded, [])
      {:error, :no_uv} -> no_python(request, rejected, [])
    end
  end

  # A Python that cannot be embedded can still bring uv, which brings one that can.
  defp uv_for_download(_request, %Uv{} = uv, _rejected), do: {:ok, uv}

  defp uv_for_download(request, nil, rejected) do
    with %{path: path} <- Enum.find(rejected, &(&1.venv and &1.version != nil and &1.version >= [3, 8, 0])),
         _told = Step.note(request.report, "none will do here; getting uv with #{path}"),
         {:ok, uv} <- Uv.bootstrap(path, Path.join(request.home, "uv")) do
      {:ok, uv}
    else
      nil -> {:error, :no_uv}
      {:error, {_tool, failure}} -> {:error, failure}
    end
  end

  defp no_python(request, rejected, notes) do
    {:error, Failure.no_python(rejected, notes, hint(request, rejected), request)}
  end

  defp hint(request, rejected) do
    remedies = rejected |> Enum.map(& &1.remedy) |> Enum.reject(&is_nil/1) |> Enum.uniq()

    case {remedies, request} do
      {[remedy | _others], _request} ->
        remedy

      {[], %{python: given}} when is_binary(given) ->
        "name another with --python, or leave --python out: the setup then looks for one itself."

      {[], %{machine: %Machine{os: :macos}}} ->
        "brew install python@3.12"

      {[], %{machine: %Machine{debian: true}}} ->
        "sudo apt-get install -y python3 python3-venv libpython3-dev (where that is Python #{Interpreter.supported()}), " <>
          "or install uv, which brings a Python of its own."

      {[], _request} ->
        "install Python 3.12 with its shared library from your system's packages, or uv, which brings its own."
    end
  end

  defp last_line(output), do: output |> Command.last_lines(1) |> List.first("") |> String.trim()
end
