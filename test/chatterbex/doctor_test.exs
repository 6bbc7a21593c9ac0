defmodule Chatterbex.DoctorTest do
  # Not async: it changes environment variables, which all tests share.
  use ExUnit.Case, async: false

  import Chatterbex.FakeHome, only: [make: 1, make: 2, make: 3, say: 1, well: 1]

  alias Chatterbex.Doctor
  alias Chatterbex.Doctor.Resources

  doctest Doctor

  @moduletag :tmp_dir

  @cpu %{
    "device" => "cpu",
    "name" => "A CPU",
    "available" => true,
    "reason" => nil,
    "warning" => nil,
    "memory" => 8.0e9
  }
  @mps %{@cpu | "device" => "mps", "name" => "Apple MPS (M2)"}
  @facts %{"macos" => [15, 0], "torch" => nil}

  defp examine(home, options \\ []) do
    assert {:ok, report} = Doctor.run([home: home] ++ options)
    report
  end

  defp check(report, name) do
    assert [check] = Enum.filter(report.checks, &(&1.name == name)), "no check #{name}"
    check
  end

  defp status(report, name), do: check(report, name).status

  # Shell lines for devices.py: the devices, and the result of trying each.
  defp devices(found, attempts) do
    list = say(%{"event" => "devices", "devices" => found, "facts" => @facts})
    tries = Enum.map_join(attempts, "\n", fn {device, lines} -> "'try #{device}') #{lines} ;;" end)
    "case \"$*\" in\nlist) #{list} ;;\n#{tries}\nesac"
  end

  defp begin(name), do: %{"event" => "begin", "name" => name}

  defp right(name),
    do: %{
      "event" => "check",
      "name" => name,
      "ok" => true,
      "message" => nil,
      "required" => true,
      "seconds" => 0.01
    }

  defp wrong(name, message, required),
    do: %{right(name) | "ok" => false, "message" => message, "required" => required}

  defp done, do: %{"event" => "done", "ok" => true, "reason" => nil, "eager_attention" => false}

  defp well_tried, do: say([begin("matmul"), right("matmul"), done()])

  describe "this machine" do
    @describetag timeout: 300_000

    test "passes" do
      report = examine(nil)
      assert report.ok, inspect(for %{status: :failed} = check <- report.checks, do: check)
      assert Chatterbex.Doctor.summary(report) =~ "Everything that is set up works"

      for name <- [
            "native audio",
            "native libpython",
            "native chatterbex",
            "Python",
            "libpython",
            "packages",
            "built-in voice"
          ] do
        assert status(report, name) == :ok, name
      end

      assert check(report, "packages").details.packages["hibari-tts"]

      if status(report, "PyTorch") != :not_set_up do
        for tried <- ~w(matmul stft long_conv1d attention), do: assert(status(report, "cpu: #{tried}") == :ok)
      end

      assert %{details: %{total: total}} = check(report, "memory")
      assert total > 500_000_000
      assert Enum.all?(report.checks, &(&1.status != :failed or is_binary(&1.remedy)))
    end

    test "has a final line of JSON", %{tmp_dir: dir} do
      home = Path.join(dir, "nothing")

      output =
        ExUnit.CaptureIO.capture_io(fn -> Mix.Tasks.Chatterbex.Doctor.run(["--json", "--path", home]) end)

      assert {:ok, %{"ok" => true, "home" => ^home, "checks" => checks}} = Chatterbex.JSON.decode(output)
      assert %{"status" => "not_set_up", "remedy" => remedy} = Enum.find(checks, &(&1["name"] == "Python"))
      assert remedy == "mix chatterbex.setup --path #{home}"
    end
  end

  describe "a home" do
    test "that is empty is not a failure", %{tmp_dir: dir} do
      report = examine(Path.join(dir, "nothing"))
      assert report.ok
      assert %{status: :not_set_up, remedy: remedy, message: message} = check(report, "Python")
      assert remedy =~ "mix chatterbex.setup --path "
      assert message =~ "there is no Python environment"
      assert Doctor.summary(report) == "Nothing is set up yet."
    end

    test "whose setup was interrupted is a failure", %{tmp_dir: dir} do
      home = Path.join(dir, "home")
      File.mkdir_p!(Path.join(home, "venv"))
      report = examine(home)
      refute report.ok
      assert %{status: :failed, message: message} = check(report, "Python")
      assert message =~ "has not come to its end"
    end

    test "whose packages were changed since, or lack files", %{tmp_dir: dir} do
      packages = %{"numpy" => "1.9", "hibari" => "0.2.1"}
      answer = say(well(%{"packages" => packages, "broken" => %{"hibari" => "voice.onnx"}}))
      report = dir |> make(%{environment: answer}) |> examine()
      refute report.ok
      assert %{status: :failed, message: message, remedy: remedy} = check(report, "packages")

      assert message ==
               "not as they were installed: numpy is 1.9, not 2.0, torch is missing, hibari lacks voice.onnx"

      assert remedy =~ "mix chatterbex.setup --force --path "
    end

    test "whose packages do not load", %{tmp_dir: dir} do
      imports =
        Map.put(well(%{})["imports"], "torch", "ImportError: libgomp.so.1: cannot open shared object file")

      report = dir |> make(%{environment: say(well(%{"imports" => imports}))}) |> examine()
      assert status(report, "built-in voice") == :ok
      assert %{status: :failed, message: message} = check(report, "PyTorch")
      assert message == "torch does not load: ImportError: libgomp.so.1: cannot open shared object file"
    end

    test "whose packages crash the process", %{tmp_dir: dir} do
      script = "case \"$*\" in *torch*) kill -SEGV $$ ;; *) #{say(well(%{}))} ;; esac"
      report = dir |> make(%{environment: script}) |> examine()
      assert status(report, "packages") == :ok
      assert %{status: :failed, message: message} = check(report, "PyTorch")
      assert message =~ "was killed by signal 11"
    end

    test "with the packages of another version", %{tmp_dir: dir} do
      manifest = %{"profiles" => %{"hibari" => %{"lock_sha256" => "old"}}}
      report = dir |> make(%{}, manifest) |> examine()
      assert %{status: :failed, message: message} = check(report, "Python")
      assert message =~ "which this version has changed"
      refute Enum.any?(report.checks, &(&1.name == "PyTorch"))
    end

    test "without PyTorch", %{tmp_dir: dir} do
      home = make(dir)
      path = Path.join(home, "venv/chatterbex.json")
      {:ok, manifest} = path |> File.read!() |> Chatterbex.JSON.decode()
      {_torch, manifest} = pop_in(manifest["profiles"]["torch"])
      File.write!(path, Chatterbex.JSON.encode(manifest))
      report = examine(home)
      assert report.ok
      assert %{status: :not_set_up, remedy: remedy} = check(report, "PyTorch")
      assert remedy =~ ~r/^mix chatterbex.setup --(cpu|mps|cuda) --path /
      refute Enum.any?(report.checks, &(&1.section == :device))
    end
  end

  describe "a device" do
    test "that works", %{tmp_dir: dir} do
      script = devices([@cpu, @mps], %{"cpu" => well_tried(), "mps" => well_tried()})
      report = dir |> make(%{devices: script}) |> examine()
      assert report.ok
      assert check(report, "device mps").message == "Apple MPS (M2), macOS 15.0, 8.0 GB"
      assert status(report, "mps: matmul") == :ok
    end

    test "that is missing, requested or not", %{tmp_dir: dir} do
      no = %{
        @mps
        | "available" => false,
          "reason" => "this PyTorch was built without MPS: run `mix chatterbex.setup --mps`"
      }

      script = devices([@cpu, no], %{"cpu" => well_tried()})
      report = dir |> make(%{devices: script}) |> examine()
      assert report.ok

      assert %{status: :not_set_up, message: "this PyTorch was built without MPS"} =
               check(report, "device mps")

      wanted = %{"torch" => %{"device" => "mps", "build" => "locked", "requested" => nil, "fault" => nil}}
      report = dir |> make(%{devices: script}, wanted) |> examine()
      refute report.ok
      assert status(report, "device mps") == :failed
    end

    test "that computes wrong results, and one that models can do without", %{tmp_dir: dir} do
      tried =
        say([
          begin("stft"),
          wrong("stft", "differs from the CPU by 3.1", true),
          begin("fused_attention"),
          wrong("fused_attention", "differs from the CPU by 0.5", false),
          done()
        ])

      warned = %{@mps | "warning" => "this is macOS 15.0; before 15.1 ..."}
      script = devices([@cpu, warned], %{"cpu" => well_tried(), "mps" => tried})
      report = dir |> make(%{devices: script}) |> examine()
      refute report.ok

      assert %{status: :failed, message: "differs from the CPU by 3.1", remedy: remedy} =
               check(report, "mps: stft")

      assert remedy =~ "until then models run on the CPU"
      assert status(report, "mps: fused_attention") == :warning
      assert status(report, "device mps") == :warning
    end

    test "that computes right results, and how close it comes to the CPU", %{tmp_dir: dir} do
      tried = say([begin("matmul"), Map.put(right("matmul"), "difference", 3.0e-7), done()])
      script = devices([@cpu, @mps], %{"cpu" => well_tried(), "mps" => tried})
      report = dir |> make(%{devices: script}) |> examine()
      assert %{status: :ok, message: "within 3.0e-07 of the CPU" <> _} = check(report, "mps: matmul")
      assert %{status: :ok, message: "right" <> _} = check(report, "cpu: matmul")
    end

    test "that crashes its process is named with the failed check, and the others are tried too", %{
      tmp_dir: dir
    } do
      lines = say([begin("matmul"), right("matmul"), begin("long_conv1d")])

      crash =
        lines <> "; echo 'failed assertion: commit an already committed command buffer' >&2; kill -ABRT $$"

      script = devices([@mps, @cpu], %{"mps" => crash, "cpu" => well_tried()})
      report = dir |> make(%{devices: script}) |> examine()
      refute report.ok
      assert status(report, "mps: matmul") == :ok
      assert %{status: :failed, message: message} = check(report, "mps: long_conv1d")
      assert message =~ "was killed by signal 6"
      assert message =~ "already committed command buffer"
      assert status(report, "cpu: matmul") == :ok
    end

    test "that does not answer does not block the doctor", %{tmp_dir: dir} do
      script = devices([@mps], %{"mps" => say(begin("matmul")) <> "; sleep 600"})
      report = dir |> make(%{devices: script}) |> examine(timeout: 1_000)
      assert %{status: :failed, message: "the process had not ended after 1 s"} = check(report, "mps: matmul")
    end

    test "of a PyTorch that crashes when it is imported", %{tmp_dir: dir} do
      report = dir |> make(%{devices: "kill -BUS $$"}) |> examine()
      assert %{status: :failed, message: message} = check(report, "devices")
      assert message =~ ~r/looking at the devices with PyTorch was killed by signal \d+/
    end
  end

  describe "the files of a model" do
    setup %{tmp_dir: dir} do
      before = System.get_env("HF_HUB_CACHE")
      System.put_env("HF_HUB_CACHE", dir)
      on_exit(fn -> System.put_env(%{"HF_HUB_CACHE" => before}) end)
      snapshot = Path.join(dir, "models--ResembleAI--chatterbox-nano/snapshots/abc123")
      File.mkdir_p!(snapshot)
      refs = Path.join(dir, "models--ResembleAI--chatterbox-nano/refs")
      File.mkdir_p!(refs)
      File.write!(Path.join(refs, "main"), "abc123")
      %{snapshot: snapshot, home: Path.join(dir, "nothing")}
    end

    test "that were never fetched", %{home: home} do
      assert %{status: :not_set_up, remedy: "mix chatterbex.models download turbo"} =
               home |> examine() |> check("model turbo")
    end

    test "that are partly fetched, or damaged", %{home: home, snapshot: snapshot} do
      assert home |> examine() |> status("model nano") == :not_set_up
      File.write!(Path.join(snapshot, "ve.safetensors"), "not a header")
      report = examine(home)
      refute report.ok
      assert %{status: :failed, message: message} = check(report, "model nano")
      assert message =~ "ve.safetensors is cut short"
    end

    test "that are complete, and whether they are right", %{home: home, snapshot: snapshot} do
      for file <- ["t3_nano_v1.safetensors", "s3gen_meanflow.safetensors", "ve.safetensors"],
          do: File.write!(Path.join(snapshot, file), <<2::little-64, "{}">>)

      for file <-
            ~w(conds.pt vocab.json merges.txt added_tokens.json special_tokens_map.json tokenizer_config.json),
          do: File.write!(Path.join(snapshot, file), "something")

      assert %{status: :ok, details: %{precision: nil}} = home |> examine() |> check("model nano")

      part = %{precision: "int8", passed: true, kl_divergence: 0.001, changed_tokens: 0.002}
      File.mkdir_p!(Path.join(home, "precision"))

      File.write!(
        Path.join(home, "precision/nano-0.json"),
        Chatterbex.JSON.encode(%{folder: snapshot, t3: part, flow: nil})
      )

      assert %{status: :ok, message: message} = home |> examine() |> check("model nano")

      assert message =~
               "; precision: :auto has T3 in int8 (KL divergence 0.00100 nats, 0.20% of tokens changed), flow in float32"

      # No voice is in that file.
      assert %{status: :failed, message: message} = home |> examine(verify: true) |> check("model nano")
      assert message =~ "damaged"
    end
  end

  describe "the task" do
    test "exits with 1 if a check failed, and prints the remedy", %{tmp_dir: dir} do
      home = make(dir, %{devices: "exit 1"})

      output =
        ExUnit.CaptureIO.capture_io(fn ->
          assert catch_exit(Mix.Tasks.Chatterbex.Doctor.run(["--path", home])) == {:shutdown, 1}
        end)

      assert output =~ ~r/^FAILED      devices  /m
      assert output =~ ~r/^            -> mix chatterbex.setup --force/m
      assert output =~ "1 of the checks failed"

      assert_raise Chatterbex.Error, ~r/not everything that is set up works: devices/, fn ->
        ExUnit.CaptureIO.capture_io(fn -> Doctor.run!(home: home) end)
      end
    end

    test "reports unknown options" do
      for {arguments, said} <- [
            {["--jsn"], ~r/unknown option --jsn. Did you mean "--json"\?/},
            {["now"], ~r/unexpected argument "now"/},
            {["--path"], ~r/--path needs a value/}
          ] do
        assert_raise Mix.Error, said, fn -> Mix.Tasks.Chatterbex.Doctor.run(arguments) end
      end
    end
  end

  describe "disk and memory" do
    test "are read from the output of system tools" do
      assert Resources.free("""
             Filesystem     1024-blocks      Used Available Capacity Mounted on
             /dev/disk3s5     482797652 201200000 100000000      68% /System/Volumes/Data
             """) == 100_000_000 * 1024

      assert Resources.free("df: no such file\n") == nil

      assert Resources.linux("MemTotal:       16000000 kB\nMemFree:   100 kB\nMemAvailable:    8000000 kB\n") ==
               %{total: 16_384_000_000, available: 8_192_000_000}

      vm_stat = """
      Mach Virtual Memory Statistics: (page size of 16384 bytes)
      Pages free:                               10000.
      Pages active:                            300000.
      Pages inactive:                          200000.
      Pages speculative:                         5000.
      Pages wired down:                        100000.
      """

      assert Resources.macos("17179869184\n", vm_stat) == %{
               total: 17_179_869_184,
               available: 215_000 * 16_384
             }

      assert Resources.macos("", "") == %{total: nil, available: nil}
    end

    test "are checked for a folder that does not exist yet", %{tmp_dir: dir} do
      assert Resources.disk(Path.join(dir, "a/b/c")) > 0
      assert %{total: total, available: available} = Resources.memory()
      assert total >= available
    end
  end
end
