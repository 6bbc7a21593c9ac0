defmodule Chatterbex.BenchTest do
  # Not async: other work would be measured too, and the task turns the log off.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp
  import ExUnit.CaptureIO

  alias Chatterbex.{Bench, Error, JSON}

  doctest Bench

  # Any new link would be a server that was left running.
  setup do
    links = Process.info(self(), :links)
    level = Logger.level()

    on_exit(fn -> Logger.configure(level: level) end)
    %{links: links}
  end

  defp refused(arguments) do
    error = assert_raise Mix.Error, fn -> Mix.Tasks.Chatterbex.Bench.run(arguments) end
    refute error.message =~ "\n"
    error.message
  end

  test "the built-in voice, which has only the CPU", %{links: links} do
    assert {:ok, report} = Bench.run(model: :hibari, device: :mps, rounds: 2)
    assert %{model: :hibari, sentences: 3, rounds: 2, faster: nil, times: nil, measured: [cpu]} = report
    assert report.reason =~ "CPU"
    assert %{device: "cpu", tokens_per_second: nil} = cpu
    # Three sentences, twice.
    assert cpu.audio_seconds > 6
    assert cpu.rtf == cpu.work_seconds / cpu.audio_seconds
    assert cpu.first_audio_seconds > 0
    assert cpu.load_seconds > 0
    assert Process.info(self(), :links) == links

    assert Bench.text(report) =~
             ~r/^hibari: 3 sentences, 2 rounds\n\ndevice +loading +RTF .*\ncpu +[\d.]+ s +[\d.]+ +- /

    assert Bench.text(report) =~ "Only the CPU was measured: "
  end

  test "a device and the CPU, and which is faster", %{links: links} do
    test = self()
    told = &send(test, {:told, &1})
    assert {:ok, report} = Bench.run(model: :placed, device: "mps", rounds: 1, progress: told)
    assert %{measured: [%{device: "cpu"} = cpu, %{device: "mps"} = mps], reason: nil} = report
    assert cpu.audio_seconds == mps.audio_seconds
    assert report.faster == if(cpu.rtf < mps.rtf, do: "cpu", else: "mps")
    assert report.times == max(cpu.rtf, mps.rtf) / min(cpu.rtf, mps.rtf)
    assert Process.info(self(), :links) == links

    for said <- ["loading the model", "measuring on mps, round 1 of 1", "measuring on cpu, round 1 of 1"],
        do: assert_received({:told, ^said})

    times = &%{report | faster: &1, times: 2.04}
    assert Bench.text(times.("mps")) =~ "\nmps is 2.0 times as fast as the CPU."

    assert Bench.text(times.("cpu")) =~
             "\nThe CPU is 2.0 times as fast as mps: device: :cpu is the better choice here."
  end

  test "a device that fails during the measurement is not measured" do
    assert {:ok, report} = Bench.run(model: :placed, device: "cuda", rounds: 1)
    assert %{measured: [%{device: "cpu"}], faster: nil, reason: "told to"} = report
  end

  test "a failure is an error, and nothing is left running", %{links: links} do
    assert {:error, %Error{reason: :not_supported, message: message}} = Bench.run(model: :conversion)
    assert message =~ "speaks no text"
    assert {:error, %Error{reason: :unknown_model}} = Bench.run(model: :trubo)
    assert {:error, %Error{reason: :not_supported}} = Bench.run(model: :hibari, max_tokens: 5)
    assert {:error, %Error{reason: :invalid_option, message: message}} = Bench.run(roundz: 1)
    assert message =~ "Did you mean :rounds?"
    assert Process.info(self(), :links) == links
  end

  test "the task prints it for people and programs" do
    text = capture_io(fn -> Mix.Tasks.Chatterbex.Bench.run(["--rounds", "1"]) end)
    assert text =~ "hibari: 3 sentences, 1 round\n"

    json =
      capture_io(fn ->
        Mix.Tasks.Chatterbex.Bench.run(["--model", "placed", "-d", "mps", "--rounds", "1", "--json"])
      end)

    assert {:ok, %{"model" => "placed", "measured" => [cpu, mps], "faster" => _faster}} = JSON.decode(json)
    assert %{"device" => "cpu", "rtf" => rtf} = cpu
    assert rtf > 0
    assert mps["device"] == "mps"
  end

  test "the task refuses what it does not understand" do
    assert refused(["--modle", "nano"]) =~ ~s(unknown option --modle. Did you mean "--model"?)
    assert refused(["--rounds", "many"]) =~ ~s(--rounds does not accept "many".)
    assert refused(["--rounds"]) == "--rounds needs a value."
    assert refused(["nano"]) =~ ~s(unexpected argument "nano".)
    assert refused(["--rounds", "0"]) =~ "must be a whole number from 1 to 100, got 0"
    assert refused(["--precision", "int4"]) =~ ~s(one of :float32, :bfloat16, :int8, :auto, got "int4")
    assert refused(["--model", "trubo"]) =~ "Did you mean :turbo?"
  end

  @tag skip: no_chatterbox(), timeout: 600_000
  test "a Chatterbox model, with its tokens" do
    options = [
      model: :nano,
      checkpoint: checkpoint(:nano),
      device: "cpu",
      rounds: 1,
      max_tokens: 6,
      precision: :int8
    ]

    assert {:ok, %{measured: [cpu], reason: nil, versions: versions} = report} = Bench.run(options)
    assert is_float(cpu.tokens_per_second) and cpu.tokens_per_second > 0
    assert is_map_key(versions, "torch")
    # 6 tokens and 3 of silence, of 0.04 s, for each of 3 sentences.
    assert_in_delta cpu.audio_seconds, 1.08, 0.001
    assert %{requested: "int8", t3: "int8", flow: flow, verdict: nil} = cpu.precision
    assert Bench.text(report) =~ "\nOn cpu: T3 in int8, flow in #{flow}.\nOnly the CPU was measured."
  end
end
