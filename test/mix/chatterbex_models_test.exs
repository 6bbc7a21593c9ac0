defmodule Mix.Tasks.Chatterbex.ModelsTest do
  # Not async: it captures stderr, and environment variables say where the hub and the cache are.
  use ExUnit.Case, async: false

  import Chatterbex.LocalHub
  import ExUnit.CaptureIO

  alias Chatterbex.ModelFiles
  alias Mix.Tasks.Chatterbex.Models

  @moduletag :tmp_dir

  case Chatterbex.Python.find(profiles: ["torch"]) do
    {:ok, _python} -> :ok
    {:error, _error} -> @moduletag skip: "huggingface_hub is not installed: mix chatterbex.setup --cpu"
  end

  setup_all do
    %{hub: start()}
  end

  setup %{hub: hub, tmp_dir: dir} do
    %{hub: use_hub(hub, dir)}
  end

  # What it writes to stdout and stderr.
  defp run(arguments) do
    test = self()
    stderr = capture_io(:stderr, fn -> send(test, {:stdout, capture_io(fn -> Models.run(arguments) end)}) end)
    assert_received {:stdout, stdout}
    {stdout, stderr}
  end

  defp refused(arguments) do
    test = self()

    capture_io(:stderr, fn ->
      send(test, {:refused, assert_raise(Mix.Error, fn -> Models.run(arguments) end).message})
    end)

    assert_received {:refused, message}
    message
  end

  test "list, download, path, verify, remove", %{hub: hub} do
    serve(hub, :conversion)
    {table, ""} = run([])
    assert table =~ ~r/^conversion +not here$/m
    assert table =~ ~r/^multilingual --language-pack hi +not here$/m
    assert refused(~w(path conversion)) =~ "Run: mix chatterbex.models download conversion"

    {"", said} = run(~w(download conversion))
    {:ok, folder} = ModelFiles.locate(:conversion)
    assert said =~ ~r/^conversion: \d+ kB to fetch, 320 kB in all$/m
    assert said =~ "conversion: s3gen.safetensors, 300 kB\nconversion: conds.pt, 20 kB\n"
    assert String.ends_with?(said, "conversion: all files are in #{folder}\n")
    assert run(~w(download conversion --quiet)) == {"", ""}

    {table, ""} = run(~w(list))
    assert table =~ ~r/^conversion +here, 320 kB$/m
    assert table =~ ~r/^english +2 of 5 files are here$/m
    assert run(~w(path conversion)) == {folder <> "\n", ""}
    assert run(~w(path)) == {ModelFiles.cache_folder() <> "\n", ""}

    assert run(~w(verify)) == {"", "conversion: 2 files of 320 kB are right.\n"}
    File.write!(Path.join(folder, "conds.pt"), "PK")

    assert refused(~w(verify)) =~
             "conds.pt is cut short. Run: mix chatterbex.models download conversion --force"

    run(~w(download conversion --force))
    run(~w(verify conversion))

    assert {"", "conversion: removed, 320 kB are free again.\n"} = run(~w(remove conversion))
    assert {"", "conversion: nothing to remove.\n"} = run(~w(remove conversion))
    assert {"", "no model is here.\n"} = run(~w(verify))
  end

  test "a fine-tune", %{hub: hub, tmp_dir: dir} do
    serve(hub, :nano)
    write(hub, "someone/nano", "tuned.safetensors", safetensors("tuned", 1000))
    flags = ~w(--repo someone/nano --t3 tuned.safetensors)
    missing = refused(~w(path nano) ++ flags)
    assert String.ends_with?(missing, "Run: mix chatterbex.models download nano " <> Enum.join(flags, " "))

    {"", said} = run(~w(download nano) ++ flags)
    assert said =~ "nano: tuned.safetensors, "
    assert said =~ "nano: s3gen_meanflow.safetensors, "
    {folder, ""} = run(~w(path nano) ++ flags)
    t3 = folder |> String.trim() |> Path.join("t3_nano_v1.safetensors")
    assert File.read!(t3) == safetensors("tuned", 1000)
    assert run(~w(verify nano) ++ flags) == {"", "nano: 9 files of 641 kB are right.\n"}

    path = Path.join(dir, "own.safetensors")
    File.write!(path, safetensors("own", 1000))
    assert {_folder, ""} = run(~w(path nano --t3) ++ [path])
    assert refused(~w(path nano --t3 missing.safetensors)) =~ "missing.safetensors is missing"
  end

  test "a version and a language pack", %{hub: hub} do
    serve(hub, :multilingual, version: :v2)
    run(~w(download multilingual --version v2))
    {table, ""} = run([])
    assert table =~ ~r/^multilingual --version v2 +here, \d+ kB$/m
    {"", said} = run(~w(verify))
    assert said =~ "multilingual --version v2: 6 files of "
    assert refused(~w(download multilingual --language-pack fr)) =~ "must be one of"
    assert refused(~w(download turbo --version v2)) =~ "the model :turbo has no option :version"
  end

  test "reports what it waits for", %{hub: hub} do
    serve(hub, :conversion)
    fail(hub, path: "large/", method: "GET", cut: 1000)
    {"", said} = run(~w(download conversion))
    assert said =~ "trying again in 1 s"
  end

  test "stopped in the middle, the next download continues there, and fetches only the rest", %{
    hub: hub,
    tmp_dir: dir
  } do
    serve(hub, :conversion)
    System.put_env("HF_HUB_DOWNLOAD_TIMEOUT", "600")
    fail(hub, path: "large/", method: "GET", hold: 200_000)

    # As Ctrl-C ends it: the VM stops, and with it the program that fetches.
    code = ~S{Mix.start(); Mix.CLI.main(["chatterbex.models", "download", "conversion"])}
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: paths ++ ["-e", code],
        env:
          for(
            {name, value} <- [HF_ENDPOINT: hub.url, HF_HOME: "#{dir}/huggingface"],
            do: {to_charlist(name), to_charlist(value)}
          )
      ])

    {:os_pid, pid} = Port.info(port, :os_pid)
    assert_receive {^port, {:data, "conversion: " <> _sizes}}, 60_000
    await_held(hub)
    {_output, 0} = System.cmd("kill", ["-KILL", "#{pid}"])
    assert_receive {^port, {:exit_status, _killed}}, 10_000

    {"", said} = run(~w(download conversion))
    [_line, left] = Regex.run(~r/^conversion: (\d+) kB to fetch, 320 kB in all$/m, said)
    assert String.to_integer(left) <= 120
    starts = for %{"path" => "/large/" <> _checksum, "start" => start} <- requests(hub, "GET"), do: start
    assert [0, start | _small] = starts
    assert start > 0
    run(~w(verify conversion))
  end

  test "a failure is one line and an exit code", %{hub: hub, tmp_dir: dir} do
    code = ~S{Mix.start(); Mix.CLI.main(["chatterbex.models", "download", "nano"])}
    environment = [{"HF_ENDPOINT", hub.url}, {"HF_HOME", dir}]
    {output, status} = Chatterbex.TestHelp.elixir(code, env: environment)
    assert status == 1

    assert output =~
             "the files of :nano were not fetched: the hub refuses t3_nano_v1.safetensors of ResembleAI/"

    assert length(String.split(output, "\n", trim: true)) == 1
  end

  test "invalid arguments are refused before anything is done" do
    assert refused(~w(downlod)) =~ ~s[unknown command "downlod". Did you mean "download"?]
    assert refused(~w(download)) == "which model? As in: mix chatterbex.models download turbo"
    assert refused(~w(remove)) == "which model? As in: mix chatterbex.models remove turbo"
    assert refused(~w(download nono)) =~ "Did you mean :nano?"
    assert refused(~w(list turbo)) =~ "list takes no model"
    assert refused(~w(download turbo --forse)) =~ ~s[unknown option --forse. Did you mean "--force"?]
    assert refused(~w(download turbo --revision)) == "--revision needs a value."
    assert refused(~w(download turbo --force=maybe)) == ~s(--force does not accept "maybe".)
  end

  test "--help prints the commands and options to stdout" do
    {text, ""} = run(~w(--help))

    for word <- ~w(download verify remove path --version --language-pack --revision --force --home --quiet),
        do: assert(text =~ word)
  end
end
