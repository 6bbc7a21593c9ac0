defmodule Chatterbex.Setup.Interpreter do
  @moduledoc false
  # Finds a Python that the BEAM can embed, by asking each candidate's own interpreter.

  alias Chatterbex.JSON
  alias Chatterbex.Setup.{Command, Machine, Profile}

  @enforce_keys [:path, :base_executable, :version, :implementation, :libpython, :venv]
  defstruct [:path, :base_executable, :version, :implementation, :libpython, :venv]

  @typedoc "A Python that can be embedded. `venv` tells whether it can make environments by itself."
  @type t :: %__MODULE__{
          path: Path.t(),
          base_executable: Path.t(),
          version: String.t(),
          implementation: String.t(),
          libpython: Path.t(),
          venv: boolean
        }

  @typedoc "A Python that cannot, why, and what would change that."
  @type rejected :: %{
          path: Path.t(),
          why: String.t(),
          remedy: String.t() | nil,
          version: [integer] | nil,
          venv: boolean
        }

  # The first start of a freshly installed Python on macOS takes seconds.
  @timeout 30_000

  @doc """
  The versions that can be embedded, for messages.
  """
  @spec supported() :: String.t()
  def supported do
    minors = Enum.sort(minors())
    "3.#{hd(minors)} to 3.#{List.last(minors)}"
  end

  defp minors, do: Enum.map(Profile.pythons(), fn "3." <> minor -> String.to_integer(minor) end)

  @doc """
  The Pythons of the machine, in the order in which to try them: on PATH, in well-known folders, pyenv's.
  """
  @spec candidates(Machine.t()) :: [Path.t()]
  def candidates(%Machine{} = machine) do
    in_folders = for name <- names(), folder <- machine.path ++ machine.folders, do: Path.join(folder, name)

    Enum.filter(in_folders ++ pyenv(machine.pyenv), &Machine.executable?/1)
  end

  defp names, do: Enum.map(Profile.pythons(), &"python#{&1}") ++ ["python3"]

  @doc """
  The version in the value of `--python`, such as `"3.11"`; `nil` if the value is not a version.
  """
  @spec version_request(String.t() | nil) :: String.t() | nil
  def version_request(given), do: if(given && given =~ ~r/\A\d+\.\d+\z/, do: given)

  @doc """
  The candidate for a path, a folder or a name on PATH.
  """
  @spec named(String.t(), Machine.t()) :: [Path.t()]
  def named(given, %Machine{} = machine) do
    cond do
      not String.contains?(given, "/") -> List.wrap(Machine.executable(given, machine.path))
      File.dir?(given) -> [Path.join(Path.expand(given), "bin/python3")]
      true -> [Path.expand(given)]
    end
  end

  @doc """
  The first of `candidates` that can be embedded, and those before it that cannot.

  With `venv: true` it must also be able to make an environment by itself, which is needed where there is no
  uv; with `version: "3.11"` it must be of that version.
  """
  @spec first(Enumerable.t(), Machine.t(), keyword) :: {:ok, t, [rejected]} | {:error, [rejected]}
  def first(candidates, %Machine{} = machine, options \\ []) do
    candidates
    |> Stream.uniq_by(&identity/1)
    |> Enum.reduce_while({:error, []}, fn path, {:error, rejected} ->
      case examine(path, machine, options) do
        {:ok, interpreter} -> {:halt, {:ok, interpreter, Enum.reverse(rejected)}}
        {:error, why} -> {:cont, {:error, [why | rejected]}}
      end
    end)
    |> case do
      {:error, rejected} -> {:error, Enum.reverse(rejected)}
      found -> found
    end
  end

  @doc """
  Asks one Python about itself.
  """
  @spec examine(Path.t(), Machine.t(), keyword) :: {:ok, t} | {:error, rejected}
  def examine(path, %Machine{} = machine, options \\ []) do
    with {:ok, answers} <- ask(path) do
      case problem(answers, machine, options) do
        nil -> {:ok, interpreter(path, answers)}
        {why, remedy} -> {:error, rejected(path, why, remedy, answers)}
      end
    end
  end

  @doc """
  Whether two are one installation.
  """
  @spec same?(t, t) :: boolean
  def same?(%__MODULE__{} = one, %__MODULE__{} = other) do
    one.version == other.version and one.libpython == other.libpython and
      same_file?(one.base_executable, other.base_executable)
  end

  @doc """
  Whether two paths lead to one file.
  """
  @spec same_file?(Path.t(), Path.t()) :: boolean
  def same_file?(path, path), do: true
  def same_file?(one, other), do: File.exists?(one) and identity(one) == identity(other)

  defp ask(path) do
    cond do
      not File.exists?(path) -> {:error, rejected(path, "there is no such file")}
      not Machine.executable?(path) -> {:error, rejected(path, "it is not a program that may be run")}
      true -> run(path)
    end
  end

  defp run(path) do
    case Command.run(path, ["-I", Profile.script("interpreter.py")], timeout: @timeout) do
      {:ok, output} ->
        answers(path, output)

      {:error, %{why: {:timeout, _milliseconds}}} ->
        {:error, rejected(path, "it did not answer within #{div(@timeout, 1000)} s")}

      {:error, %{why: {:exit, status}, output: output}} ->
        {:error, rejected(path, "it does not run (exit #{status}#{said(output)})")}
    end
  end

  # The site's start-up code may print too: our answer is the last line that is an object.
  defp answers(path, output) do
    decoded =
      output
      |> String.split("\n", trim: true)
      |> Enum.reverse()
      |> Enum.find_value(&with({:ok, %{} = answers} <- JSON.decode(&1), do: answers, else: (_other -> nil)))

    case decoded do
      %{"version" => [major, minor, patch], "base_executable" => base, "implementation" => name} = answers
      when is_integer(major) and is_integer(minor) and is_integer(patch) and is_binary(base) and
             is_binary(name) ->
        {:ok, answers}

      _no_answer ->
        {:error, rejected(path, "it does not answer as a Python does#{said(output)}")}
    end
  end

  # Each problem is {why, remedy or nil}.
  defp problem(answers, machine, options) do
    [major, minor, _patch] = answers["version"]

    cond do
      answers["implementation"] != "CPython" ->
        {"it is #{answers["implementation"]}, not CPython", nil}

      "#{major}.#{minor}" not in Profile.pythons() ->
        {"it is Python #{version(answers)}, not #{supported()}", nil}

      options[:version] not in [nil, "#{major}.#{minor}"] ->
        {"it is Python #{version(answers)}, not #{options[:version]}", nil}

      answers["free_threaded"] == true ->
        {"it is a free-threaded Python, which loads no libraries made for the stable ABI", nil}

      answers["bits"] != 64 ->
        {"it is a 32-bit Python", nil}

      answers["musl"] == true ->
        {"it is built for musl (Alpine), for which ONNX Runtime and PyTorch have no packages", nil}

      not same_processor?(answers, machine) ->
        {"it is for #{answers["machine"]}, and this VM for #{machine.architecture}", nil}

      not is_binary(answers["libpython"]) ->
        no_library(answers, machine)

      options[:venv] == true and answers["venv"] != true ->
        no_venv(answers, machine)

      true ->
        nil
    end
  end

  # On Linux this is the kernel's processor. The check for 64 bits and the opened library cover the difference.
  defp same_processor?(answers, machine) do
    processor = Machine.normal(answers["machine"] || "")

    String.ends_with?(answers["build_platform"] || "", "universal2") or
      machine.architecture not in ["x86_64", "aarch64"] or processor not in ["x86_64", "aarch64"] or
      processor == machine.architecture
  end

  defp no_library(%{"failures" => [[path, why] | _more]}, _machine),
    do: {"its #{path} does not open: #{why}", nil}

  defp no_library(%{"system" => true} = answers, %Machine{debian: true} = machine) do
    remedy =
      "sudo apt-get install -y #{Enum.join(["libpython#{minor(answers)}" | venv_package(answers, machine)], " ")}"

    {"its shared library is not installed (Debian has it in a package of its own)", remedy}
  end

  defp no_library(%{"shared" => true}, _machine), do: {"its shared library is not where it should be", nil}

  defp no_library(answers, _machine) do
    if answers["base_executable"] =~ "/.pyenv/" or answers["base_executable"] =~ "/pyenv/" do
      {"pyenv built it without a shared library",
       "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force #{version(answers)}"}
    else
      {"it was built without a shared library (configure --enable-shared)", nil}
    end
  end

  defp no_venv(%{"system" => true} = answers, %Machine{debian: true}),
    do:
      {"it cannot make environments: ensurepip is not installed",
       "sudo apt-get install -y python#{minor(answers)}-venv"}

  defp no_venv(_answers, _machine),
    do: {"it cannot make environments: its modules venv and ensurepip are missing", nil}

  defp venv_package(%{"venv" => true}, _machine), do: []
  defp venv_package(answers, _machine), do: ["python#{minor(answers)}-venv"]

  defp interpreter(path, answers) do
    %__MODULE__{
      path: path,
      base_executable: answers["base_executable"],
      version: version(answers),
      implementation: answers["implementation"],
      libpython: answers["libpython"],
      venv: answers["venv"] == true
    }
  end

  defp rejected(path, why, remedy \\ nil, answers \\ %{}) do
    %{path: path, why: why, remedy: remedy, version: answers["version"], venv: answers["venv"] == true}
  end

  defp version(answers), do: Enum.join(answers["version"], ".")

  defp minor(%{"version" => [major, minor, _patch]}), do: "#{major}.#{minor}"

  defp said(output) do
    case Command.last_lines(output, 40) |> Enum.find(&(&1 =~ ~r/error|not found|: /i)) do
      nil -> ""
      line -> ": #{line |> String.trim() |> String.slice(0, 200)}"
    end
  end

  # A file with several names is asked only once. The name matters too, because pyenv's shims are one file.
  defp identity(path) do
    case File.stat(path) do
      {:ok, stat} -> {stat.major_device, stat.inode, path |> follow(40) |> Path.basename()}
      {:error, _reason} -> path
    end
  end

  defp follow(path, 0), do: path

  defp follow(path, left) do
    case File.read_link(path) do
      {:ok, target} -> target |> Path.expand(Path.dirname(path)) |> follow(left - 1)
      {:error, _no_link} -> path
    end
  end

  defp pyenv(nil), do: []

  defp pyenv(versions) do
    for version <- Profile.pythons(),
        path <- Path.wildcard("#{versions}/#{version}.*/bin/python#{version}"),
        do: path
  end
end
