defmodule Mix.Tasks.Chatterbex.ProveTest do
  # Not async: the task turns the log off.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp
  import ExUnit.CaptureIO

  alias Chatterbex.{Error, Prove, Recognition}
  alias Mix.Tasks.Chatterbex.Prove, as: Task

  doctest Prove

  @moduletag :tmp_dir

  setup do
    level = Logger.level()
    on_exit(fn -> Logger.configure(level: level) end)
    # Any new link would be a server that was left running.
    %{links: Process.info(self(), :links)}
  end

  defp refused(arguments) do
    error = assert_raise Mix.Error, fn -> capture_io(fn -> Task.run(arguments) end) end
    error.message
  end

  defp status(report, name), do: Enum.find(report.checks, &(&1.name == name)).status

  @tag skip: Recognition.missing()
  test "the built-in voice is understood, and the report names no folder", %{tmp_dir: dir, links: links} do
    path = Path.join(dir, "hibari.md")
    said = capture_io(fn -> Task.run(["--recogniser", Recognition.python(), "--report", path]) end)
    assert said =~ ~r/^hibari: passed; not checked: device, watermark, agreement\n/
    assert said =~ ~r/^words +ok +cpu: \d %/m
    assert said =~ ~r/^cpu +[\d.]+ s +[\d.]+ +[\d.]+ s +[\d.]+ s +\d+ %$/m
    assert said =~ "The report is in #{path}."

    report = File.read!(path)
    assert report =~ "# Proof of `hibari`: passed"
    assert report =~ "The weather is nice today. / the weather is nice today"
    assert report =~ ~r/^\| hibari-tts \| [\d.]+ \|$/m
    for secret <- [dir, System.user_home!(), Recognition.python()], do: refute(report =~ secret)
    assert Process.info(self(), :links) == links
  end

  test "without a recogniser the words are skipped, and the report says so", %{tmp_dir: dir} do
    home = Path.join(dir, "home")
    File.mkdir_p!(home)
    File.ln_s!(Chatterbex.Python.venv(Chatterbex.Python.home()), Chatterbex.Python.venv(home))

    # In its own VM, because a VM has only one home.
    code = """
    {:ok, _apps} = Application.ensure_all_started(:chatterbex)
    {:ok, report} = Chatterbex.Prove.run(home: #{inspect(home)})
    IO.puts(Chatterbex.Prove.text(report))
    """

    assert {said, 0} = elixir(code)
    assert said =~ "hibari: passed; not checked: device, watermark, agreement, words\n"
    assert said =~ ~r/^words +not checked +.*--install-recogniser installs it$/m
    assert said =~ ~r/^cpu .* -$/m
    assert File.ls!(home) == ["venv"]
  end

  test "a device and the CPU with the same speech", %{links: links} do
    test = self()
    assert {:ok, report} = Prove.run(model: :placed, device: "mps", progress: &send(test, {:told, &1}))
    assert [%{device: "cpu"}, %{device: "mps"}] = report.measured
    assert status(report, "device") == :passed
    assert status(report, "agreement") == :passed
    assert Enum.all?(report.sentences, & &1.similarity.equal)
    markdown = Prove.markdown(report)
    assert markdown =~ "## The device against the CPU"
    assert markdown =~ ~r/^\| 10 \| 0\.00 s \| .* \| equal \|$/m
    [first | rest] = report.sentences

    quieter =
      put_in(first.similarity, %{first.similarity | equal: false, loudness: -0.001, difference: -90.04})

    assert Prove.markdown(%{report | sentences: [quieter | rest]}) =~
             ~r/^\| 1 \| 0\.00 s \| 0\.00 \| .* \| -90\.0 \|$/m

    assert Process.info(self(), :links) == links

    for told <- [
          "loading the model",
          "speaking on mps, sentence 1 of 10",
          "speaking on cpu, sentence 10 of 10"
        ],
        do: assert_received({:told, ^told})
  end

  test "a device that falls back while it speaks fails, and so does one that is not used" do
    assert {:ok, report} = Prove.run(model: :placed, device: "cuda")
    assert %{passed: false, measured: [%{device: "cpu"}]} = report
    assert %{status: :failed, message: message} = hd(report.checks)
    assert message =~ "told to"
    assert status(report, "agreement") == :skipped
    assert Prove.text(report) =~ "placed: FAILED\n"

    assert {:ok, %{passed: false} = report} = Prove.run(device: :mps)
    assert status(report, "device") == :failed
    assert {:ok, %{passed: true} = report} = Prove.run(device: :cpu)
    assert status(report, "device") == :skipped
  end

  test "the exit status is that of the checks, and the report is always written", %{tmp_dir: dir} do
    path = Path.join(dir, "placed.md")
    arguments = ["--model", "placed", "-d", "cuda", "--report", path]
    assert capture_io(fn -> assert catch_exit(Task.run(arguments)) == {:shutdown, 1} end) =~ "placed: FAILED"
    assert File.read!(path) =~ ": FAILED"
  end

  test "an impossible task is reported, and leaves no file", %{tmp_dir: dir, links: links} do
    path = Path.join(dir, "none.md")
    assert refused(["--modle", "nano"]) =~ ~s(unknown option --modle. Did you mean "--model"?)
    assert refused(["nano"]) =~ ~s(unexpected argument "nano".)
    assert refused(["--model", "trubo", "--report", path]) =~ "Did you mean :turbo?"
    assert refused(["--model", "conversion", "--report", path]) =~ "does not speak English"
    assert refused(["--model", "nano", "--checkpoint", dir, "--report", path]) =~ dir
    assert refused(["--recogniser", "/nowhere/python", "--report", path]) =~ "--install-recogniser"
    # The errors, the last to be found first.
    assert refused(["--model", "trubo", "--report", Path.join(dir, "none/a.md")]) =~ "Make its folder first."
    assert {:error, %Error{reason: :invalid_option}} = Prove.run(recognizer: "python")
    assert File.ls!(dir) == []
    assert Process.info(self(), :links) == links
  end

  @tag skip: no_chatterbox() || Recognition.missing(), timeout: 600_000
  test "random weights get as far as the words, which the recogniser cannot understand" do
    options = [model: :nano, checkpoint: checkpoint(:nano), device: "cpu", max_tokens: 22]
    assert {:ok, report} = Prove.run([recogniser: Recognition.python()] ++ options)

    assert Enum.map(report.checks, &{&1.name, &1.status}) == [
             {"device", :skipped},
             {"sound", :passed},
             {"watermark", :passed},
             {"agreement", :skipped},
             {"words", :failed}
           ]

    assert [%{word_error_rate: rate}] = report.measured
    assert rate > 0.7
    assert Enum.all?(report.sentences, &match?(%{spoken: [%{tokens: 22, watermarked: true}]}, &1))
    assert is_map_key(report.versions, "torch")
  end
end
