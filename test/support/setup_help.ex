defmodule Chatterbex.SetupHelp do
  @moduledoc """
  Machines for the tests of the setup: Pythons and uvs that are small scripts, and a package of one file.

  The fakes write each of their calls to a log, so that a test can count them.
  """

  alias Chatterbex.Setup
  alias Chatterbex.Setup.{HostMachine, PackageProfile}

  @answers %{
    version: [3, 11, 7],
    implementation: "CPython",
    executable: "/opt/python/bin/python3",
    base_executable: "/opt/python/bin/python3",
    bits: 64,
    machine: "x86_64",
    build_platform: "linux-x86_64",
    musl: false,
    shared: true,
    system: false,
    libpython: "/opt/python/lib/libpython3.11.so.1.0",
    failures: []
  }

  @doc """
  Adds to a test's context a home, and a machine with a real Python and a uv that is a script: what it installs with is
  up to the test.
  """
  def with_machine(%{tmp_dir: dir}) do
    tools = Path.join(dir, "tools")
    link = link_real_python(Path.join(dir, "pythons"))
    uv = fake_uv(Path.join(tools, "uv"), real_python(), install_tiny())

    %{
      home: Path.join(dir, "home"),
      venv: Path.join(dir, "home/venv"),
      tools: tools,
      python: link,
      uv: uv,
      machine: machine([tools, Path.dirname(link)])
    }
  end

  @doc """
  Runs a setup of `tiny`, with its lines as messages to the test.
  """
  def set_up(context, options \\ []) do
    test = self()

    Setup.run(
      Keyword.merge(
        [
          home: context.home,
          machine: context.machine,
          profiles: [tiny_profile(context.tmp_dir)],
          report: &send(test, {:line, &1})
        ],
        options
      )
    )
  end

  @doc """
  The lines that came since the last time.
  """
  def lines do
    receive do
      {:line, line} -> [line | lines()]
    after
      0 -> []
    end
  end

  @doc """
  The lines that came since the last time, as they are read.
  """
  def text, do: Enum.join(lines(), "\n")

  @doc """
  A machine that has only what is in `folders`.
  """
  def machine(folders, overrides \\ []) do
    struct!(%HostMachine{os: :linux, architecture: HostMachine.this().architecture, path: folders}, overrides)
  end

  @doc """
  A Python that answers the inspection with `answers` (over those of a good one), and else runs `script`.
  """
  def fake_python(path, answers \\ %{}, script \\ "exit 3") do
    processor = HostMachine.this().architecture

    answers =
      @answers
      |> Map.merge(%{machine: processor, executable: path, base_executable: path})
      |> Map.merge(Map.new(answers))

    # One line, as the real one.
    json = answers |> Chatterbex.JSON.encode() |> String.replace(~r/\n\s*/, "")

    executable(path, """
    echo "python $*" >> '#{log(path)}'
    case "$*" in
      *provision/interpreter.py*) echo '#{json}'; exit ;;
      *provision/hold_lock.py*) echo held; exec cat >/dev/null ;;
    esac
    #{script}
    """)
  end

  @doc """
  A uv that makes environments with `python`, finds the Pythons in the folders of PATH (their names tell their versions),
  and installs by running `install` with the environment's Python in `$program` and the folder for packages in `$site`.
  `download` is what it does for `uv python install`.
  """
  def fake_uv(path, python, install, download \\ "exit 2") do
    executable(path, """
    echo "uv $*" >> '#{log(path)}'
    case "$1 $2" in
      "--version "*) echo 'uv 0.99.0 (a fake)' ;;
      "venv "*) for folder; do :; done; exec '#{python}' -m venv --without-pip "$folder" ;;
      "pip install" | "pip sync")
        program=$4
        site=$("$program" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        #{install}
        ;;
      "python list") #{list_pythons()} ;;
      "python install") #{download} ;;
    esac
    """)
  end

  # PATH has the machine's folders only, so there are the shell's own commands.
  defp list_pythons do
    """
    separator='['
    IFS=:
    for folder in $PATH; do
      for python in "$folder"/python3*; do
        test -x "$python" || continue
        case $python in *python3.*) version=${python##*python}.0 ;; *) version=3.11.7 ;; esac
        printf '%s{"path": "%s", "version": "%s"}' "$separator" "$python" "$version"
        separator=,
      done
    done
    test $separator = , && echo ']' || echo '[]'
    """
  end

  @doc """
  Shell lines for `fake_uv/4` that install the package of one file, `tiny`.
  """
  def install_tiny do
    """
    echo 'value = 1' > "$site/tiny.py"
    mkdir -p "$site/tiny-1.0.dist-info"
    printf 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n' > "$site/tiny-1.0.dist-info/METADATA"
    printf 'tiny.py,,10\\ntiny-1.0.dist-info/METADATA,,\\n' > "$site/tiny-1.0.dist-info/RECORD"
    echo ' + tiny==1.0' >&2
    """
  end

  @doc """
  A profile with `tiny` in it. Its lock file is in `dir`.
  """
  def tiny_profile(dir) do
    lock = Path.join(dir, "tiny.txt")
    unless File.exists?(lock), do: File.write!(lock, "tiny==1.0\n")
    %PackageProfile{name: "tiny", title: "a tiny package", locks: [lock], imports: ["tiny"]}
  end

  @doc """
  A profile in the place of PyTorch, version 2.15.0 (2.10.0 for CUDA 12, 2.14.1 for Python 3.10), with `tiny` in it. `answer` is what its proof says.
  """
  def torch_profile(dir, answer \\ %{}) do
    networks = Path.join(dir, "networks.txt")
    torch = Path.join(dir, "torch.txt")
    File.write!(networks, "tiny==1.0\n")
    cuda12 = Path.join(dir, "torch-cuda12.txt")

    File.write!(torch, """
    nvidia-cudnn-cu13==9.26.0
    torch==2.14.1 ; python_full_version < '3.11' \\
        --hash=sha256:0
    torch==2.15.0 ; python_full_version >= '3.11' \\
        --hash=sha256:1
    """)

    File.write!(cuda12, "nvidia-cudnn-cu12==9.10.2\ntorch==2.10.0\n")

    %{
      tiny_profile(dir)
      | name: "torch",
        title: "a small PyTorch",
        locks: [networks],
        torch: %{locked: torch, cuda12: cuda12},
        proof: proof(dir, answer)
    }
  end

  @doc """
  A proof that says that `device` is right and works, but for what `answer` says.
  """
  def proof(dir, answer \\ %{}) do
    answer =
      Map.merge(
        %{torch: "2.15.0", error: nil, fault: nil, name: "a processor", tried: ["matmul", "stft"]},
        answer
      )

    File.write!(Path.join(dir, "proof.json"), Chatterbex.JSON.encode(answer))
    script = Path.join(dir, "proof.py")

    File.write!(script, """
    import json, sys
    open(#{inspect(Path.join(dir, "proved"))}, "a").write(sys.argv[1] + "\\n")
    print(json.dumps(json.load(open(#{inspect(Path.join(dir, "proof.json"))}))))
    """)

    script
  end

  @doc """
  The devices that the proof was asked for, in order.
  """
  def proved(dir) do
    case File.read(Path.join(dir, "proved")) do
      {:ok, text} -> String.split(text)
      {:error, :enoent} -> []
    end
  end

  @doc """
  The Python that the tests' own environment was made with: a real one that can be embedded.
  """
  def real_python do
    {:ok, python} = Chatterbex.Python.find()
    python.manifest["python"]["base_executable"]
  end

  @doc """
  Makes a folder with a link to the real Python in it, under a name that is looked for.
  """
  def link_real_python(folder) do
    File.mkdir_p!(folder)
    {:ok, python} = Chatterbex.Python.find()
    [major, minor | _patch] = String.split(python.version, ".")
    link = Path.join(folder, "python#{major}.#{minor}")
    File.ln_s!(real_python(), link)
    link
  end

  @doc """
  The calls of the fakes in a folder, in order.
  """
  def calls(folder) do
    case File.read(Path.join(folder, "calls")) do
      {:ok, text} -> String.split(text, "\n", trim: true)
      {:error, :enoent} -> []
    end
  end

  @doc """
  Makes a shell script that may be run.
  """
  def executable(path, script) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, "#!/bin/sh\n" <> script)
    File.chmod!(path, 0o755)
    path
  end

  defp log(path), do: Path.join(Path.dirname(path), "calls")
end
