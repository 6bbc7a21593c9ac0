defmodule Chatterbex.Setup.PythonInterpreter do
  @moduledoc false
  # A Python, and whether the BEAM can embed it: its own interpreter is asked (priv/python/provision/interpreter.py).

  alias Chatterbex.Setup.{HostMachine, PackageProfile, Subprocess}

  @enforce_keys [:path, :base_executable, :version, :implementation, :libpython]
  defstruct [:path, :base_executable, :version, :implementation, :libpython]

  @type t :: %__MODULE__{path: Path.t(), base_executable: Path.t(), version: String.t(), libpython: Path.t()}

  @typedoc "A Python that cannot be embedded, why, and what would change that."
  @type rejected :: %{path: Path.t(), why: String.t(), remedy: String.t() | nil}

  # The first start of a freshly installed Python on macOS takes seconds.
  @timeout 30_000

  @doc "The versions that can be embedded, for messages."
  @spec supported() :: String.t()
  def supported do
    {oldest, newest} = PackageProfile.pythons() |> Enum.min_max_by(&Version.parse!(&1 <> ".0"), Version)
    "#{oldest} to #{newest}"
  end

  @doc "Asks one Python about itself. With a `version` such as `\"3.11\"` it must be of that one."
  @spec examine(Path.t(), HostMachine.t(), String.t() | nil) :: {:ok, t} | {:error, rejected}
  def examine(path, %HostMachine{} = machine, version \\ nil) do
    with {:ok, answers} <- ask(path), nil <- problem(answers, machine, version) do
      {:ok,
       %__MODULE__{
         path: path,
         base_executable: answers["base_executable"],
         version: version(answers),
         implementation: answers["implementation"],
         libpython: answers["libpython"]
       }}
    else
      {why, remedy} -> {:error, %{path: path, why: why, remedy: remedy}}
      why -> {:error, %{path: path, why: why, remedy: nil}}
    end
  end

  @doc "Whether two paths lead to one file."
  @spec same_file?(Path.t(), Path.t()) :: boolean
  def same_file?(one, other) do
    with {:ok, one} <- File.stat(one), {:ok, other} <- File.stat(other) do
      {one.major_device, one.inode} == {other.major_device, other.inode}
    else
      _missing -> false
    end
  end

  # The answers, or the reason why there are none.
  defp ask(path) do
    cond do
      not File.exists?(path) -> "there is no such file"
      not HostMachine.executable?(path) -> "it is not a program that may be run"
      true -> run(path)
    end
  end

  # The site's start-up code may print too: the answer is the last line that is an object.
  defp run(path) do
    case Subprocess.answer(path, ["-I", PackageProfile.script("interpreter.py")], timeout: @timeout) do
      {:ok, %{"version" => [_major, _minor, _patch], "base_executable" => <<_::binary>>} = answers} ->
        {:ok, answers}

      {:ok, _no_python} ->
        "it does not answer as a Python does"

      {:error, %{why: :no_answer, output: output}} ->
        "it does not answer as a Python does#{said(output)}"

      {:error, %{why: {:timeout, _ms}}} ->
        "it did not answer within #{div(@timeout, 1000)} s"

      {:error, %{why: {:exit, status}, output: output}} ->
        "it does not run (exit #{status}#{said(output)})"
    end
  end

  # A reason, with a remedy if there is one.
  defp problem(answers, machine, wanted) do
    version = minor(answers)

    reasons = [
      {answers["implementation"] != "CPython", "it is #{answers["implementation"]}, not CPython"},
      {version not in PackageProfile.pythons(), "it is Python #{version(answers)}, not #{supported()}"},
      {wanted not in [nil, version], "it is Python #{version(answers)}, not #{wanted}"},
      {answers["free_threaded"] == true,
       "it is a free-threaded Python, which loads no libraries made for the stable ABI"},
      {answers["bits"] != 64, "it is a 32-bit Python"},
      {answers["musl"] == true,
       "it is built for musl (Alpine), for which ONNX Runtime and PyTorch have no packages"},
      {not same_processor?(answers, machine),
       "it is for #{answers["machine"]}, and this VM for #{machine.architecture}"}
    ]

    Enum.find_value(reasons, fn {wrong?, why} -> wrong? && why end) ||
      unless(is_binary(answers["libpython"]), do: no_library(answers, machine))
  end

  # On Linux this is the kernel's processor. The check for 64 bits and the opened library cover the difference.
  defp same_processor?(answers, machine) do
    processor = HostMachine.normal(answers["machine"] || "")

    String.ends_with?(answers["build_platform"] || "", "universal2") or
      machine.architecture not in ["x86_64", "aarch64"] or processor not in ["x86_64", "aarch64"] or
      processor == machine.architecture
  end

  defp no_library(%{"failures" => [[path, why] | _more]}, _machine), do: "its #{path} does not open: #{why}"

  defp no_library(%{"system" => true} = answers, %HostMachine{debian: true}),
    do:
      {"its shared library is not installed (Debian has it in a package of its own)",
       "sudo apt-get install -y libpython#{minor(answers)}"}

  defp no_library(%{"shared" => true}, _machine), do: "its shared library is not where it should be"

  defp no_library(%{"base_executable" => base} = answers, _machine) do
    if base =~ ~r/\/\.?pyenv\//,
      do:
        {"pyenv built it without a shared library",
         "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force #{version(answers)}"},
      else: "it was built without a shared library (configure --enable-shared)"
  end

  defp version(answers), do: Enum.join(answers["version"], ".")
  defp minor(%{"version" => [major, minor, _patch]}), do: "#{major}.#{minor}"

  defp said(output) do
    case output |> Subprocess.last_lines(40) |> Enum.find(&(&1 =~ ~r/error|not found|: /i)) do
      nil -> ""
      line -> ": #{line |> String.trim() |> String.slice(0, 200)}"
    end
  end
end
