defmodule Chatterbex.PythonTest do
  # Not async: it changes environment variables, which all tests share.
  use ExUnit.Case, async: false

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, NvidiaDriver, PackageProfile, TorchPlan}

  doctest Python

  @moduletag :tmp_dir

  @variables ~w(CHATTERBEX_HOME XDG_CACHE_HOME RELEASE_ROOT RELEASE_NAME)

  setup do
    before = Map.new(@variables, &{&1, System.get_env(&1)})
    configured = Application.fetch_env(:chatterbex, :home)

    on_exit(fn ->
      System.put_env(before)

      case configured do
        {:ok, home} -> Application.put_env(:chatterbex, :home, home)
        :error -> Application.delete_env(:chatterbex, :home)
      end
    end)

    System.put_env(Map.new(@variables, &{&1, nil}))
    Application.delete_env(:chatterbex, :home)
  end

  defp manifest(home) do
    libpython = Path.join(home, "libpython3.11.so")
    File.write!(libpython, "")
    program = Path.join(home, "venv/bin/python")
    File.mkdir_p!(Path.dirname(program))
    File.write!(program, "")
    File.chmod!(program, 0o755)
    [hibari | _others] = PackageProfile.all()

    %{
      "chatterbex" => "0.1.0",
      "python" => %{"version" => "3.11.7", "base_executable" => "/usr/bin/python3.11"},
      "libpython" => libpython,
      "profiles" => %{"hibari" => %{"lock_sha256" => PackageProfile.lock_sha256(hibari)}},
      "packages" => %{}
    }
  end

  defp write(home, manifest), do: :ok = EnvironmentManifest.write(Path.join(home, "venv"), manifest)

  defp refused(home) do
    assert {:error, %Error{reason: :not_set_up} = error} = Python.find(home: home)
    assert String.ends_with?(error.message, "Run: mix chatterbex.setup --path #{home}")
    assert error.details.command == "mix chatterbex.setup --path #{home}"
    error.message
  end

  describe "the home" do
    test "an option beats the variable, which beats the configuration, which beats the cache folder" do
      assert Path.basename(Python.home()) == "chatterbex"
      Application.put_env(:chatterbex, :home, "/configured")
      assert Python.home() == "/configured"
      System.put_env("CHATTERBEX_HOME", "/variable")
      assert Python.home() == "/variable"
      assert Python.home(home: "/option") == "/option"
      assert Python.home(home: nil) == "/variable"
      System.put_env("CHATTERBEX_HOME", "")
      assert Python.home() == "/configured"
    end

    test "is absolute" do
      assert Python.home(home: "relative/folder") == Path.expand("relative/folder")
      assert Python.home(home: "~/folder") == Path.join(System.user_home!(), "folder")
    end

    test "XDG_CACHE_HOME is respected, unless it is relative" do
      System.put_env("XDG_CACHE_HOME", "/cache")
      assert Python.home() == "/cache/chatterbex"
      System.put_env("XDG_CACHE_HOME", "cache")
      refute Python.home() == Path.expand("cache/chatterbex")
    end
  end

  test "a complete environment", %{tmp_dir: home} do
    write(home, manifest(home))
    assert {:ok, python} = Python.find(home: home)
    assert python.program == Path.join(home, "venv/bin/python")
    assert python.libpython == Path.join(home, "libpython3.11.so")
    assert python.version == "3.11.7"
    assert python.home == home
    assert %{"manifest" => 1, "chatterbex" => "0.1.0"} = python.manifest
  end

  test "nothing at all", %{tmp_dir: home} do
    assert refused(home) =~ "there is no Python environment in #{home}"
  end

  test "an interrupted setup", %{tmp_dir: home} do
    :ok = EnvironmentManifest.begin(Path.join(home, "venv"))
    assert refused(home) =~ "has not come to its end"
  end

  test "a manifest of an older or a newer version", %{tmp_dir: home} do
    write(home, manifest(home))
    path = EnvironmentManifest.path(Path.join(home, "venv"))
    text = File.read!(path)

    File.write!(path, String.replace(text, ~s("manifest": 1), ~s("manifest": 0)))
    assert refused(home) =~ "made by an older version"
    File.write!(path, String.replace(text, ~s("manifest": 1), ~s("manifest": 2)))
    assert refused(home) =~ "made by a newer version"
  end

  test "a manifest that cannot be read", %{tmp_dir: home} do
    path = EnvironmentManifest.path(Path.join(home, "venv"))

    for text <- ["", "{", "[]", "null", "{}", ~s({"manifest": 1}), ~s({"manifest": "1"}), <<0xFF>>] do
      write(home, manifest(home))
      File.write!(path, text)
      assert refused(home) =~ "#{path} cannot be read"
    end

    for broken <- [
          %{"profiles" => %{"hibari" => 1}},
          %{"libpython" => nil},
          %{"python" => %{}},
          %{"packages" => []}
        ] do
      write(home, Map.merge(manifest(home), broken))
      assert refused(home) =~ "cannot be read"
    end

    File.rm!(path)
    File.mkdir!(path)
    assert refused(home) =~ "cannot be read (illegal operation on a directory)"
  end

  test "a Python that was removed", %{tmp_dir: home} do
    write(home, manifest(home))
    program = Path.join(home, "venv/bin/python")
    File.rm!(program)
    assert refused(home) =~ "(/usr/bin/python3.11) is no longer there"

    # As in a venv: a link whose target is gone.
    File.ln_s!(Path.join(home, "gone"), program)
    assert refused(home) =~ "is no longer there"
  end

  test "a libpython that was removed", %{tmp_dir: home} do
    write(home, manifest(home))
    File.rm!(Path.join(home, "libpython3.11.so"))
    assert refused(home) =~ "libpython3.11.so, is no longer there"
  end

  test "packages of another version", %{tmp_dir: home} do
    write(home, Map.put(manifest(home), "profiles", %{"hibari" => %{"lock_sha256" => "0"}}))
    assert refused(home) =~ "those of version 0.1.0, which this version has changed"

    write(home, Map.put(manifest(home), "profiles", %{}))
    assert refused(home) =~ "has no hibari in it"
  end

  test "without PyTorch the command has the flag that fits the machine", %{tmp_dir: home} do
    write(home, manifest(home))

    assert {:error, %Error{reason: :not_set_up} = error} =
             Python.find(home: home, profiles: ["hibari", "torch"])

    assert error.message =~ "PyTorch, which the Chatterbox models need, is not in #{home}/venv. "
    device = TorchPlan.fitting_device(HostMachine.this())
    assert error.details.command == "mix chatterbex.setup --#{device} --path #{home}"

    assert TorchPlan.fitting_device(%HostMachine{os: :macos, architecture: "aarch64"}) == :mps
    assert TorchPlan.fitting_device(%HostMachine{os: :macos, architecture: "x86_64"}) == :cpu
    assert TorchPlan.fitting_device(%HostMachine{nvidia: %NvidiaDriver{driver: [580, 65, 6]}}) == :cuda
    assert TorchPlan.fitting_device(%HostMachine{}) == :cpu
  end

  test "the command fits where you type it", %{tmp_dir: home} do
    assert Python.setup_command(Python.home()) == "mix chatterbex.setup"
    assert Python.setup_command("/a b/it's") == "mix chatterbex.setup --path '/a b/it'\\''s'"

    System.put_env(%{"RELEASE_ROOT" => "/srv/app", "RELEASE_NAME" => "speaker"})
    assert Python.setup_command(Python.home()) == "/srv/app/bin/speaker eval 'Chatterbex.Setup.run!()'"
    assert {:error, error} = Python.find(home: home)
    assert String.ends_with?(error.message, ~s|/bin/speaker eval 'Chatterbex.Setup.run!(home: "#{home}")'|)
    command = Python.setup_command(home, device: :cpu)

    assert String.ends_with?(
             command,
             ~s|/bin/speaker eval 'Chatterbex.Setup.run!(device: :cpu, home: "#{home}")'|
           )
  end
end
