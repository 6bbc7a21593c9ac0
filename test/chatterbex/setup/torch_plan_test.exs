defmodule Chatterbex.Setup.TorchPlanTest do
  use ExUnit.Case, async: true

  import Chatterbex.SetupHelp

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{EnvironmentManifest, HostMachine, NvidiaDriver, SetupRun, TorchPlan}

  @moduletag :tmp_dir

  setup context, do: with_machine(context)

  describe "PyTorch" do
    @new %NvidiaDriver{file: "version", driver: [580, 65, 6], cards: [{"NVIDIA GeForce RTX 5090", [12, 0]}]}
    @old %NvidiaDriver{file: "version", driver: [550, 54, 14], cards: [{"NVIDIA GeForce RTX 4090", [8, 9]}]}

    # PyTorch for CUDA 12 has no wheels for other processors.
    @old_cuda HostMachine.this().architecture != "x86_64" && "on this processor there is one build for CUDA"

    setup context do
      Map.put(context, :profiles, [tiny_profile(context.tmp_dir), torch_profile(context.tmp_dir)])
    end

    defp torch(context, options, machine \\ []) do
      machine = struct!(context.machine, machine)
      set_up(context, [profiles: context.profiles, machine: machine] ++ options)
    end

    defp recorded(context) do
      {:ok, manifest} = EnvironmentManifest.read(context.venv)
      manifest["torch"]
    end

    defp last_installs(context, count),
      do: context.tools |> calls() |> Enum.filter(&(&1 =~ ~r/^uv pip (install|sync)/)) |> Enum.take(-count)

    # What the index has, and what it has not.
    defp without(context, pattern) do
      fake_uv(
        context.uv,
        real_python(),
        "case \"$*\" in *#{pattern}*) echo 'error: No solution found'; exit 1 ;; esac\n" <> install_tiny()
      )
    end

    test "is not there without a flag, and a flag adds it to what is there", context do
      assert {:ok, %{profiles: ["tiny"], device: nil}} = torch(context, [])
      assert recorded(context) == nil
      lines()

      assert {:ok, %{changed: true, profiles: ["tiny", "torch"], device: :cpu}} = torch(context, device: :cpu)
      text = text()
      assert text =~ "Chatterbex setup: a tiny package, a small PyTorch, in #{context.home}"
      assert text =~ "continuing with the environment in #{context.venv}"

      assert text =~
               ~r/^\* trying PyTorch on the CPU: PyTorch 2\.15\.0 on a processor: matmul, stft come out right \(/m

      assert proved(context.tmp_dir) == ["cpu"]

      for options <- [[device: :cpu], [device: :auto], []],
          do: assert({:ok, %{changed: false, device: :cpu}} = torch(context, options))
    end

    test "a device that the machine does not have", context do
      for {device, machine, reason} <- [
            {:mps, [], "MPS needs macOS on Apple Silicon; this is Linux on #{context.machine.architecture}"},
            {:cuda, [],
             "no NVIDIA driver was found (looked for /proc/driver/nvidia/version and /usr/lib/wsl/lib/libcuda.so.1)"}
          ] do
        assert {:ok, %{device: :cpu}} = torch(context, [device: device], machine)
        assert text() =~ "\n--#{device}: #{reason}. PyTorch is set up for the CPU.\n"
        assert {:ok, %{changed: false}} = torch(context, [device: device], machine)
        assert text() =~ "--#{device}: #{reason}."
      end

      assert {:ok, %{changed: false}} = torch(context, device: :auto)
      assert text() =~ "\n--auto: PyTorch is set up for the CPU.\n"
    end

    test "what each machine can have" do
      arm = %HostMachine{os: :macos, architecture: "aarch64"}
      gpu = %HostMachine{nvidia: @new}
      assert {:mps, nil} = TorchPlan.choose(:mps, arm)
      assert {:mps, nil} = TorchPlan.choose(:auto, arm)
      assert {:cpu, "CUDA needs an NVIDIA GPU, and macOS" <> _rest} = TorchPlan.choose(:cuda, arm)
      assert {:cpu, nil} = TorchPlan.choose(:auto, %HostMachine{})
      assert {:cpu, nil} = TorchPlan.choose(:cpu, gpu)

      for architecture <- ["x86_64", "aarch64"],
          device <- [:cuda, :auto],
          do: assert({:cuda, nil} = TorchPlan.choose(device, %{gpu | architecture: architecture}))

      # A driver that is too old is worth a word, and no obstacle to a version that somebody names.
      ancient = %HostMachine{nvidia: %NvidiaDriver{driver: [470, 256, 2]}}

      for device <- [:cuda, :auto],
          do: assert({:cpu, "NVIDIA driver 470" <> _rest} = TorchPlan.choose(device, ancient))

      assert TorchPlan.fitting_device(ancient) == :cpu
      assert {:cuda, nil} = TorchPlan.choose(:cuda, ancient, "2.7.1")
    end

    @tag skip: @old_cuda
    test "an old driver gets PyTorch for CUDA 12, a new one that of the first lock, and why is said",
         context do
      assert {:ok, %{device: :cuda}} = torch(context, [device: :cuda], nvidia: @old)

      assert text() =~
               "--cuda: PyTorch 2.10.0 for CUDA 12 is the build to install: NVIDIA driver 550.54.14 is too old for " <>
                 "CUDA 13, which needs 580 or newer.\n"

      assert last_installs(context, 1) |> hd() =~ ~r/^uv pip sync .*--require-hashes .*\/torch-cuda12\.txt$/
      assert %{"build" => "cuda 12", "device" => "cuda"} = recorded(context)
      assert {:ok, %{changed: false}} = torch(context, [device: :cuda], nvidia: @old)
      assert {:ok, %{changed: false}} = torch(context, [], nvidia: @old)

      assert {:ok, %{changed: true, device: :cuda}} = torch(context, [], nvidia: @new)

      assert text() =~
               "--cuda: PyTorch 2.15.0 for CUDA 13 is the build to install: NVIDIA driver 580.65.6, NVIDIA GeForce " <>
                 "RTX 5090 (compute capability 12.0).\n"

      # What only the old build needed goes: the new one's files have the same names.
      assert last_installs(context, 1) |> hd() =~ ~r/^uv pip sync .*\/torch\.txt$/
      assert %{"build" => "locked"} = recorded(context)
    end

    test "a Mac with an Intel processor has none, and is told what it has", context do
      intel = [os: :macos, architecture: "x86_64"]

      for options <- [[device: :mps], [device: :cpu], [device: :auto, models: [:nano]], [torch: "2.15.0"]] do
        assert {:error, %Error{reason: :not_supported, message: message}} = torch(context, options, intel)
        assert message =~ "PyTorch 2.15.0, which the Chatterbox models need, is not made for Macs with Intel"
        assert message =~ "The built-in voice runs there: mix chatterbex.setup --path #{context.home}"
      end

      {:ok, run} =
        SetupRun.new(
          home: context.home,
          device: :auto,
          profiles: context.profiles,
          machine: struct!(context.machine, intel)
        )

      assert {:ok, %{plan: nil, wanted: [%{name: "tiny"}]} = run} = SetupRun.decide(run)
      assert TorchPlan.announcement(run) =~ "--auto: PyTorch 2.15.0 is not made for Macs with Intel"
    end

    test "for the CPU only, where the index has that", context do
      assert {:ok, _summary} = torch(context, device: :cpu)
      assert [locked, unlocked] = last_installs(context, 2)
      assert locked =~ ~r/^uv pip install .*--require-hashes .*-r \S*tiny\.txt -r \S*networks\.txt$/

      assert unlocked =~
               ~r/ torch==2\.14\.1\+cpu ; python_full_version < '3\.11' torch==2\.15\.0\+cpu ; python_full_version >= '3\.11' --no-deps$/

      assert text() =~ "PyTorch 2.15.0+cpu is not in the lock: it is taken from the index as it is there"
      assert %{"build" => "cpu only", "device" => "cpu"} = recorded(context)

      # For CUDA it has to be the other one, whatever uv thinks of their versions.
      gpu = [nvidia: @new]
      assert {:ok, %{changed: true, device: :cuda}} = torch(context, [device: :cuda], gpu)
      assert [locked] = last_installs(context, 1)
      assert locked =~ ~r/^uv pip sync .* --reinstall-package torch .*\/torch\.txt$/
      assert %{"build" => "locked", "device" => "cuda"} = recorded(context)
      assert proved(context.tmp_dir) == ["cpu", "cuda"]

      # Which runs on the CPU as well.
      assert {:ok, %{changed: true, device: :cpu}} = torch(context, [device: :cpu], gpu)
      assert [locked] = last_installs(context, 1)
      assert locked =~ ~r/^uv pip sync .*--require-hashes .*\/torch\.txt$/
      assert %{"build" => "locked", "device" => "cpu"} = recorded(context)
    end

    test "an index without one for the CPU only: the locked one is taken, which is said, once", context do
      without(context, "+cpu")
      assert {:ok, %{device: :cpu}} = torch(context, device: :cpu)

      assert text() =~
               "\nthe index has no PyTorch 2.15.0+cpu (PyTorch's own has; UV_TORCH_BACKEND=cpu lets uv look there): " <>
                 "taking the one with NVIDIA's libraries\n"

      assert [_locked, _cpu, locked] = last_installs(context, 3)
      assert locked =~ ~r/^uv pip sync .*--require-hashes .*\/torch\.txt$/
      assert %{"build" => "locked", "device" => "cpu"} = recorded(context)
      assert {:ok, %{changed: false}} = torch(context, device: :cpu)
    end

    test "without a network the one for the CPU only is not replaced", context do
      assert {:ok, %{device: :cpu}} = torch(context, device: :cpu)

      fake_uv(context.uv, real_python(), """
      case "$*" in *+cpu*) echo 'error: Failed to fetch: dns error'; exit 1 ;; esac
      #{install_tiny()}
      """)

      assert {:error, %Error{message: message}} = torch(context, device: :cpu, languages: ["de"])
      assert message =~ "hint: the package index was not reached"
      refute Enum.any?(calls(context.tools), &(&1 =~ "torch.txt"))
      assert %{"build" => "cpu only"} = recorded(context)
    end

    test "another version than the locked one", context do
      assert {:ok, %{device: :cpu}} = torch(context, torch: "2.7.1")
      assert text() =~ "PyTorch 2.7.1 is not the locked one: it is taken from the index as it is there"
      assert [locked, unlocked] = last_installs(context, 2)
      refute locked =~ "torch.txt"
      assert unlocked =~ ~r/ torch==2\.7\.1 --override \S*tiny\.txt$/
      refute unlocked =~ "--require-hashes"
      assert %{"build" => "chosen", "requested" => "2.7.1"} = recorded(context)

      # It stays until another is asked for.
      for options <- [[], [device: :cpu], [torch: "2.7.1"]],
          do: assert({:ok, %{changed: false}} = torch(context, options))

      without(context, "+cpu")
      assert {:ok, %{changed: true}} = torch(context, torch: "2.15.0")
      assert last_installs(context, 1) |> hd() =~ ~r/\/torch\.txt/
      assert %{"build" => "locked", "requested" => nil} = recorded(context)
    end

    test "a version that the index does not have", context do
      without(context, "torch==9.9.9")
      assert {:error, %Error{reason: :not_set_up, message: message}} = torch(context, torch: "9.9.9")
      assert message =~ "installing the packages failed: uv ended with exit code 1"
      assert String.ends_with?(message, "Then run: mix chatterbex.setup --torch 9.9.9 --path #{context.home}")
    end

    test "that does not work on the CPU is no PyTorch, and the rest stays", context do
      {:ok, _summary} = torch(context, [])
      proof(context.tmp_dir, %{error: "OSError: libgomp.so.1"})
      assert {:error, %Error{reason: :not_set_up, message: message}} = torch(context, device: :cpu)
      assert message =~ "PyTorch was installed but does not work:\n  | OSError: libgomp.so.1\n"
      assert String.ends_with?(message, "Then run: mix chatterbex.setup --cpu --path #{context.home}")
      assert {:ok, _python} = Python.find(home: context.home, profiles: ["tiny"])
      assert recorded(context) == nil

      proof(context.tmp_dir)
      assert {:ok, %{changed: true}} = torch(context, device: :cpu)
      assert %{"device" => "cpu"} = recorded(context)
    end

    test "a proof that dies", context do
      File.write!(Path.join(context.tmp_dir, "proof.py"), "import os; os.abort()")
      assert {:error, %Error{message: message}} = torch(context, device: :cpu)
      assert message =~ "trying PyTorch on the CPU failed: Python was killed by signal 6"
    end

    test "a device that does not work is said, written down, and tried again when asked for", context do
      gpu = [nvidia: @new]
      proof(context.tmp_dir, %{fault: "the driver is too old"})
      assert {:ok, %{changed: true}} = torch(context, [device: :cuda], gpu)

      assert text() =~
               "It does not work there, so the models will run on the CPU: the driver is too old\n" <>
                 "* trying PyTorch on CUDA: PyTorch 2.15.0 on a processor:"

      assert %{"device" => "cuda", "fault" => "the driver is too old"} = recorded(context)
      assert {:ok, %{changed: false}} = torch(context, [], gpu)

      proof(context.tmp_dir)
      assert {:ok, %{changed: true}} = torch(context, [device: :cuda], gpu)
      assert %{"device" => "cuda", "fault" => nil} = recorded(context)
      assert {:ok, %{changed: false}} = torch(context, [device: :cuda], gpu)
    end
  end

  describe "models and languages" do
    # In the place of Chatterbex.ModelFiles: it needs no network.
    defmodule Files do
      def download("nano", options) do
        progress = %{status: :fetching, message: nil, file: "a", bytes: 5_000_000, total: 10_000_000}

        Enum.each(
          [progress, progress, %{progress | status: :waiting, message: "the hub asks to wait"}],
          options[:on_progress]
        )

        {:ok, Path.join(options[:home], "nano")}
      end

      def download("turbo", _options), do: {:error, Error.new(:model_files_missing, "the hub refuses")}
    end

    setup context do
      data = Path.join(context.tmp_dir, "data.py")
      answer = Path.join(context.tmp_dir, "data.json")
      File.write!(data, "print(open(#{inspect(answer)}).read())")
      File.write!(answer, ~s({"error": null, "note": "it divides"}))

      chinese = %{
        tiny_profile(context.tmp_dir)
        | name: "chinese",
          title: "Chinese",
          language: "zh",
          data: data
      }

      profiles = [tiny_profile(context.tmp_dir), torch_profile(context.tmp_dir), chinese]
      Map.merge(context, %{profiles: profiles, answer: answer})
    end

    defp with_files(context, options),
      do: set_up(context, [profiles: context.profiles, model_files: Files] ++ options)

    test "models are fetched after the packages, and bring PyTorch", context do
      assert {:ok, %{changed: true, device: :cpu, profiles: ["tiny", "torch"]}} =
               with_files(context, models: [:nano, "nano"])

      assert text() =~ ~r/^\* fetching the files of nano: in \S+nano \(\d+\.\d s\)$/m

      assert {:ok, %{"models" => ["nano"]}} = EnvironmentManifest.read(context.venv)

      # Asked for again, they are looked after again; not asked for, not.
      assert {:ok, %{changed: false}} = with_files(context, models: [:nano])
      assert text() =~ "fetching the files of nano"
      assert {:ok, %{changed: false}} = with_files(context, [])
      refute text() =~ "fetching the files"
    end

    test "models that cannot be fetched: the error is theirs, and the packages are there", context do
      assert {:error, %Error{reason: :model_files_missing}} = with_files(context, models: [:nano, :turbo])
      assert text() =~ ~r/^\* fetching the files of turbo: failed/m
      assert {:ok, %{"torch" => %{"device" => "cpu"}} = manifest} = EnvironmentManifest.read(context.venv)
      assert manifest["models"] == ["nano", "turbo"]
    end

    test "a language brings its packages and what they need besides, and others bring nothing", context do
      assert {:ok, %{profiles: ["chinese", "tiny", "torch"]}} = with_files(context, languages: [:zh, "de"])
      text = text()
      assert text =~ "\n--languages: de: nothing to install.\n"
      assert text =~ ~r/^\* fetching Chinese besides its package: it divides \(/m
      assert {:ok, %{"languages" => ["de", "zh"]}} = EnvironmentManifest.read(context.venv)
      assert {:ok, %{changed: false}} = with_files(context, languages: [:zh])
      assert {:ok, %{changed: false}} = with_files(context, [])
    end

    test "what a language needs besides and is not there is said, and tried again", context do
      File.write!(context.answer, ~s({"error": "not there: no network"}))
      assert {:ok, %{profiles: ["chinese", "tiny", "torch"]}} = with_files(context, languages: [:zh])
      assert text() =~ ~r/: not there: no network \(/m
      assert {:ok, %{changed: false}} = with_files(context, [])

      File.write!(context.answer, ~s({"error": null, "note": "it divides"}))
      assert {:ok, %{changed: true}} = with_files(context, languages: [:zh])
      assert {:ok, %{changed: false}} = with_files(context, languages: [:zh])
    end

    test "the command to run again has what was asked for", context do
      fake_uv(context.uv, real_python(), "exit 1")

      assert {:error, %Error{details: %{command: command}}} =
               with_files(context, device: :cpu, models: [:nano], languages: [:zh, :ja])

      assert command == "mix chatterbex.setup --cpu --models nano --languages zh,ja --path #{context.home}"
    end
  end
end
