defmodule Chatterbex.Setup.PythonInterpreterTest do
  use ExUnit.Case, async: true

  import Chatterbex.SetupHelp

  alias Chatterbex.Setup.{PackageProfile, PythonInterpreter}

  @moduletag :tmp_dir

  defp examine(dir, answers, options \\ []) do
    python = fake_python(Path.join(dir, "python3"), answers)
    PythonInterpreter.examine(python, machine([dir], options[:machine] || []), options[:version])
  end

  defp why(dir, answers, options \\ []) do
    assert {:error, rejected} = examine(dir, answers, options)
    {rejected.why, rejected.remedy}
  end

  test "a real Python is asked by its own interpreter, and its library opens" do
    assert {:ok, found} = PythonInterpreter.examine(real_python(), machine([]))
    assert found.version =~ ~r/^3\.1[0-4]\.\d+$/
    assert found.implementation == "CPython"
    assert File.regular?(found.libpython)
    assert Path.basename(found.libpython) =~ ~r/python/i
  end

  test "a good answer", %{tmp_dir: dir} do
    assert {:ok, found} = examine(dir, %{})
    assert found.version == "3.11.7"
    assert found.libpython == "/opt/python/lib/libpython3.11.so.1.0"
  end

  test "what a site prints at start-up does not matter", %{tmp_dir: dir} do
    python = Path.join(dir, "python3")
    fake_python(python)
    File.write!(python, String.replace(File.read!(python), "echo '{", "echo 'Welcome {to} Python'; echo '{"))
    assert {:ok, _found} = PythonInterpreter.examine(python, machine([dir]))
  end

  test "every version that the locks serve", %{tmp_dir: dir} do
    for minor <- 10..14 do
      python = fake_python(Path.join(dir, "python3.#{minor}"), version: [3, minor, 1])
      assert {:ok, %{version: "3." <> _rest}} = PythonInterpreter.examine(python, machine([dir]))
    end
  end

  test "a free-threaded Python", %{tmp_dir: dir} do
    assert {"it is a free-threaded Python, which loads no libraries made for the stable ABI", nil} =
             why(dir, version: [3, 14, 0], free_threaded: true)
  end

  test "versions out of range", %{tmp_dir: dir} do
    assert {"it is Python 3.9.18, not 3.10 to 3.14", nil} = why(dir, version: [3, 9, 18])
    assert {"it is Python 3.15.0, not 3.10 to 3.14", nil} = why(dir, version: [3, 15, 0])
    assert {"it is Python 2.7.18, not 3.10 to 3.14", nil} = why(dir, version: [2, 7, 18])
    assert {"it is Python 3.11.7, not 3.12", nil} = why(dir, %{}, version: "3.12")
  end

  test "what is no 64-bit CPython for this processor and C library", %{tmp_dir: dir} do
    assert {"it is PyPy, not CPython", nil} = why(dir, implementation: "PyPy")
    assert {"it is a 32-bit Python", nil} = why(dir, bits: 32)
    assert {"it is built for musl (Alpine)" <> _more, nil} = why(dir, musl: true)

    arm = [machine: [architecture: "aarch64"]]
    assert {"it is for x86_64, and this VM for aarch64", nil} = why(dir, [machine: "x86_64"], arm)
    assert {:ok, _found} = examine(dir, [machine: "arm64", build_platform: "macosx-11.0-arm64"], arm)
    assert {:ok, _found} = examine(dir, [machine: "x86_64", build_platform: "macosx-10.9-universal2"], arm)
  end

  test "a static build of pyenv: the reason and the command", %{tmp_dir: dir} do
    static = [
      shared: false,
      libpython: nil,
      base_executable: "/home/ann/.pyenv/versions/3.11.7/bin/python3.11"
    ]

    assert {"pyenv built it without a shared library", remedy} = why(dir, static)
    assert remedy == "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force 3.11.7"
  end

  test "any other static build", %{tmp_dir: dir} do
    assert {"it was built without a shared library (configure --enable-shared)", nil} =
             why(dir, shared: false, libpython: nil)
  end

  test "a library that is there and does not open", %{tmp_dir: dir} do
    failures = [["/opt/python/lib/libpython3.11.so.1.0", "invalid ELF header"]]

    assert {"its /opt/python/lib/libpython3.11.so.1.0 does not open: invalid ELF header", nil} =
             why(dir, libpython: nil, failures: failures)
  end

  test "Debian keeps the library in a package of its own", %{tmp_dir: dir} do
    assert {"its shared library is not installed" <> _more, "sudo apt-get install -y libpython3.11"} =
             why(dir, [system: true, libpython: nil], machine: [debian: true])
  end

  test "what does not run or does not answer", %{tmp_dir: dir} do
    machine = machine([dir])
    refused = fn path -> path |> PythonInterpreter.examine(machine) |> elem(1) |> Map.fetch!(:why) end

    assert refused.(Path.join(dir, "none")) == "there is no such file"

    File.write!(Path.join(dir, "plain"), "")
    assert refused.(Path.join(dir, "plain")) == "it is not a program that may be run"

    shim = executable(Path.join(dir, "shim"), "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    assert refused.(shim) == "it does not run (exit 127: pyenv: python3.12: command not found)"

    silent = executable(Path.join(dir, "silent"), "exit 0")
    assert refused.(silent) == "it does not answer as a Python does"
  end

  # The inspection itself, on builds that this machine does not have.
  defp inspect_build(config, code) do
    script = PackageProfile.script("interpreter.py")

    code = """
    import sys, sysconfig
    sys.path.insert(0, #{inspect(Path.dirname(script))})
    sys.dont_write_bytecode = True
    import interpreter
    real = sysconfig.get_config_var
    config = #{config}
    sysconfig.get_config_var = lambda name: config[name] if name in config else real(name)
    #{code}
    """

    {output, 0} = System.cmd(real_python(), ["-I", "-c", code], stderr_to_stdout: true)
    String.trim(output)
  end

  test "a framework of macOS is found by its prefix", %{tmp_dir: dir} do
    {:ok, python} = Chatterbex.Python.find()
    library = Path.join(dir, "Python.framework/Versions/3.11/Python")
    File.mkdir_p!(Path.dirname(library))
    File.ln_s!(python.libpython, library)

    config = """
    {"INSTSONAME": "Python.framework/Versions/3.11/Python", "LDLIBRARY": "Python.framework/Versions/3.11/Python",
     "LIBDIR": "/nowhere", "LIBPL": "/nowhere", "MULTIARCH": "", "PYTHONFRAMEWORK": "Python",
     "PYTHONFRAMEWORKPREFIX": #{inspect(dir)}}
    """

    assert inspect_build(config, "print(interpreter.find_library()[0])") == library
  end

  test "a static library is never taken for a shared one", %{tmp_dir: dir} do
    File.write!(Path.join(dir, "libpython3.11.a"), "")
    config = ~s({"INSTSONAME": "libpython3.11.a", "LDLIBRARY": "libpython3.11.a", "VERSION": "3.11"})
    names = inspect_build(config, "print(interpreter.library_names())")
    assert names == "['libpython3.11.so.1.0', 'libpython3.11.so', 'libpython3.11.dylib']"
  end

  test "a library that is something else is refused with the loader's words", %{tmp_dir: dir} do
    File.write!(Path.join(dir, "libpython3.11.so"), "no library")
    path = inspect(Path.join(dir, "libpython3.11.so"))

    assert inspect_build("{}", "print(interpreter.open_library(#{path}))") =~
             ~r/invalid|too short|not a mach-o/i
  end
end
