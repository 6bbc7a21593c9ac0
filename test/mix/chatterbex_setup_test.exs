defmodule Mix.Tasks.Chatterbex.SetupTest do
  # Alone: it captures stderr, which all tests share.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Chatterbex.JSON
  alias Chatterbex.Setup.Uv
  alias Chatterbex.SetupHelp
  alias Mix.Tasks.Chatterbex.Setup

  @moduletag :tmp_dir

  defp refused(arguments), do: assert_raise(Mix.Error, fn -> Setup.run(arguments) end).message

  test "flags" do
    assert Setup.options([]) == []
    assert Setup.options(path: "dir", force: true) == [force: true, home: "dir"]
    assert Setup.options(python: "3.11", quiet: true) == [python: "3.11", quiet: true]
    for device <- [:mps, :cuda, :cpu, :auto], do: assert(Setup.options([{device, true}]) == [device: device])

    assert Setup.options(cpu: true, models: "turbo,nano", languages: "ja") ==
             [models: ["turbo", "nano"], languages: ["ja"], device: :cpu]

    assert Setup.options(models: "turbo, nano,") == [models: ["turbo", "nano"]]
    assert Setup.options(torch: "2.7.1") == [torch: "2.7.1"]
  end

  test "what cannot be understood is refused before anything is done" do
    assert refused(~w(--cdua)) =~
             "unknown option --cdua. Did you mean \"--cuda\"? See `mix help chatterbex.setup`."

    assert refused(~w(--forse)) =~ ~s(Did you mean "--force"?)
    refute refused(~w(--zzzz)) =~ "Did you mean"
    assert refused(~w(-f)) =~ "unknown option -f."
    assert refused(~w(--path)) == "--path needs a value."
    assert refused(~w(--force=maybe)) == ~s(--force does not accept "maybe".)
    assert refused(["--path", ""]) == "--path needs a folder."
    assert refused(["--python", ""]) == "--python needs a path, a name or a version."
    assert refused(~w(mps)) == ~s(unexpected argument "mps". See `mix help chatterbex.setup`.)
    assert refused(~w(--models)) == "--models needs a value."
    assert refused(["--models", ","]) == "--models needs names, as in --models turbo,nano."
    assert refused(["--languages", ""]) == "--languages needs codes, as in --languages ja,zh."
    assert refused(~w(--torch)) == "--torch needs a value."
    assert refused(~w(--mps --cpu)) == "one device at a time, got --mps and --cpu."
  end

  test "--help tells the flags on stdout" do
    text = capture_io(fn -> Setup.run(["--help"]) end)

    for flag <-
          ~w(--mps --cuda --cpu --auto --models --languages --torch --path --python --force --quiet --json),
        do: assert(text =~ flag)
  end

  test "with nothing to do: one line, nothing on stdout, and quiet is quiet" do
    parent = self()

    text = capture_io(:stderr, fn -> send(parent, {:stdout, capture_io(fn -> Setup.run([]) end)}) end)

    assert text =~ "Nothing to do: Python 3."
    assert_received {:stdout, ""}
    assert capture_io(:stderr, fn -> Setup.run(["--quiet"]) end) == ""
  end

  # The objects that it prints, and what it wrote besides.
  defp json(arguments) do
    test = self()

    stderr =
      capture_io(:stderr, fn ->
        send(test, {:stdout, capture_io(fn -> catch_exit(Setup.run(arguments)) end)})
      end)

    assert_received {:stdout, stdout}

    objects =
      for line <- String.split(stdout, "\n", trim: true) do
        {:ok, object} = JSON.decode(line)
        object
      end

    {objects, stderr}
  end

  test "--json: an object for each step and one for the result, nothing else", %{tmp_dir: dir} do
    python = SetupHelp.fake_python(Path.join(dir, "python3"), version: [3, 9, 1])
    assert {[announced, step, result], ""} = json(["--json", "--path", dir, "--python", python])
    assert %{"event" => "line", "text" => "Chatterbex setup: " <> _what} = announced

    assert %{
             "event" => "step",
             "step" => "python",
             "status" => "failed",
             "note" => "failed",
             "seconds" => seconds
           } = step

    assert is_float(seconds)
    assert step["title"] == "looking for Python #{python} with a shared library"
    assert %{"event" => "result", "ok" => false, "reason" => "not_set_up", "message" => message} = result
    assert message =~ "it is Python 3.9.1, not 3.10 to 3.14"
  end

  test "--json with nothing to do" do
    {:ok, python} = Chatterbex.Python.find()
    {output, 0} = System.cmd("mix", ["chatterbex.setup", "--json"], env: [{"MIX_ENV", "test"}])
    assert {:ok, result} = output |> String.split("\n", trim: true) |> List.last() |> JSON.decode()
    assert %{"event" => "result", "ok" => true, "changed" => false} = result
    assert result["program"] == python.program
    assert result["packages"] == python.manifest["packages"]
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
