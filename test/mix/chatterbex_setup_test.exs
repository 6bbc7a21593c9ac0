defmodule Mix.Tasks.Chatterbex.SetupTest do
  # Alone: it captures stderr, which all tests share.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Chatterbex.Setup.Uv
  alias Chatterbex.SetupHelp
  alias Mix.Tasks.Chatterbex.Setup

  @moduletag :tmp_dir

  defp refused(arguments) do
    {:error, message} = Setup.options(arguments)
    assert_raise Mix.Error, message <> "\nSee mix help chatterbex.setup", fn -> Setup.run(arguments) end
    message
  end

  test "flags" do
    assert Setup.options([]) == {:ok, []}
    assert Setup.options(~w(--path dir --force)) == {:ok, [force: true, home: "dir"]}
    assert Setup.options(~w(--python 3.11 --quiet)) == {:ok, [python: "3.11", quiet: true]}

    for device <- [:mps, :cuda, :cpu, :auto],
        do: assert(Setup.options(["--#{device}"]) == {:ok, [device: device]})

    assert Setup.options(~w(--cpu --models turbo,nano --languages ja)) ==
             {:ok, [models: ["turbo", "nano"], languages: ["ja"], device: :cpu]}

    assert Setup.options(["--models", "turbo, nano,"]) == {:ok, [models: ["turbo", "nano"]]}
    assert Setup.options(~w(--torch 2.7.1)) == {:ok, [torch: "2.7.1"]}
  end

  test "what cannot be understood is refused before anything is done" do
    assert refused(~w(--cdua)) =~
             "unknown option --cdua. Did you mean \"--cuda\"? The options are --mps, --cuda"

    assert refused(~w(--forse)) =~ ~s(Did you mean "--force"?)
    refute refused(~w(--zzzz)) =~ "Did you mean"
    assert refused(~w(-f)) =~ "unknown option -f."
    assert refused(~w(--path)) == "--path needs a value."
    assert refused(~w(--force=maybe)) == ~s(--force takes no value, got "maybe".)
    assert refused(["--path", ""]) == "--path needs a folder."
    assert refused(["--python", ""]) == "--python needs a path, a name or a version."
    assert refused(~w(mps)) == ~s(unexpected argument "mps": only flags are accepted.)
    assert refused(~w(--models)) == "--models needs a value."
    assert refused(["--models", ","]) == "--models needs names, as in --models turbo,nano"
    assert refused(["--languages", ""]) == "--languages needs codes, as in --languages ja,zh"
    assert refused(~w(--torch)) == "--torch needs a value."
    assert refused(~w(--mps --cpu)) == "one device at a time, got --mps and --cpu."
  end

  test "--help tells the flags on stdout" do
    text = capture_io(fn -> Setup.run(["--help"]) end)

    for flag <- ~w(--mps --cuda --cpu --auto --models --languages --torch --path --python --force --quiet),
        do: assert(text =~ flag)
  end

  test "with nothing to do: one line, nothing on stdout, and quiet is quiet" do
    parent = self()

    text = capture_io(:stderr, fn -> send(parent, {:stdout, capture_io(fn -> Setup.run([]) end)}) end)

    assert text =~ "Nothing to do: Python 3."
    assert_received {:stdout, ""}
    assert capture_io(:stderr, fn -> Setup.run(["--quiet"]) end) == ""
  end

  test "what is not understood by the setup itself is said as the setup says it", %{tmp_dir: dir} do
    for {arguments, message} <- [
          {~w(--models trubo), "there is no model \"trubo\". Did you mean :turbo?"},
          {~w(--languages jp), "there is no language \"jp\"."},
          {~w(--torch newest), "option :torch must be a version such as \"2.7.1\", got \"newest\""}
        ] do
      error = assert_raise Mix.Error, fn -> Setup.run(["--path", dir] ++ arguments) end
      assert error.message =~ message
    end
  end

  test "the backend that uv is told is heard where no lock says what to take", %{tmp_dir: dir} do
    uv = %Uv{
      path: SetupHelp.executable(Path.join(dir, "uv"), "echo \"$1 ${UV_TORCH_BACKEND-none}\""),
      version: "0"
    }

    before = System.get_env("UV_TORCH_BACKEND")
    on_exit(fn -> System.put_env(%{"UV_TORCH_BACKEND" => before}) end)
    System.put_env("UV_TORCH_BACKEND", "cpu")
    program = Path.join(dir, "python")
    assert Uv.install(uv, program, ["a.txt"], timeout: 5_000) == {:ok, "pip none\n"}
    assert Uv.install_unlocked(uv, program, ["torch==2.6.0+cpu"], timeout: 5_000) == {:ok, "pip cpu\n"}
  end

  test "a failure raises with the reason, the hint and the command", %{tmp_dir: dir} do
    arguments = ["--path", dir, "--python", "/nowhere/python3"]

    capture_io(:stderr, fn ->
      error = assert_raise Mix.Error, fn -> Setup.run(arguments) end
      assert error.message =~ "/nowhere/python3: there is no such file"
      assert error.message =~ "\nhint: "
      assert String.ends_with?(error.message, "Then run: mix chatterbex.setup --path #{dir}")
    end)
  end

  test "the exit code is not 0 on failure", %{tmp_dir: dir} do
    {output, status} =
      Chatterbex.TestHelp.elixir("""
      Mix.start()
      Mix.CLI.main(["chatterbex.setup", "--path", #{inspect(dir)}, "--python", "/nowhere/python3"])
      """)

    assert status != 0
    assert output =~ "/nowhere/python3: there is no such file"
  end
end
