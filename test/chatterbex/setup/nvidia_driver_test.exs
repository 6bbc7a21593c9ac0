defmodule Chatterbex.Setup.NvidiaDriverTest do
  use ExUnit.Case, async: true

  import Chatterbex.SetupHelp

  alias Chatterbex.Setup.{NvidiaDriver, PackageProfile}

  @moduletag :tmp_dir

  defp build(driver, cards \\ [], architecture \\ "x86_64") do
    case NvidiaDriver.build(%NvidiaDriver{file: "version", driver: driver, cards: cards}, architecture) do
      {:ok, build, why} -> {build.name, why}
      {:error, why} -> {:none, why}
    end
  end

  @blackwell [{"NVIDIA GeForce RTX 5090", [12, 0]}]
  @volta [{"Tesla V100-SXM2-16GB", [7, 0]}]
  @pascal [{"NVIDIA GeForce GTX 1080", [6, 1]}]

  describe "the build" do
    test "for a driver of CUDA 13" do
      assert build([580, 65, 6]) == {:locked, "NVIDIA driver 580.65.6"}

      for architecture <- ["x86_64", "aarch64"] do
        assert build([610, 1], @blackwell, architecture) ==
                 {:locked, "NVIDIA driver 610.1, NVIDIA GeForce RTX 5090 (compute capability 12.0)"}
      end
    end

    test "for a driver of CUDA 12" do
      why = "NVIDIA driver 575.64 is too old for CUDA 13, which needs 580 or newer"
      assert build([575, 64]) == {:cuda12, why}
      assert build([575, 64], @blackwell) == {:cuda12, why}
      assert {:cuda12, _why} = build([525, 60, 13])
      assert {:none, refused} = build([575, 64], @blackwell, "aarch64")
      assert refused == why <> ". Install driver 580 or newer"
    end

    test "for an older driver there is none" do
      assert build([470, 256, 2], @volta) ==
               {:none,
                "NVIDIA driver 470.256.2 is too old for CUDA 12, which needs 525 or newer. Install driver 580 or newer"}
    end

    test "for a card that PyTorch with CUDA 13 leaves out" do
      why =
        "Tesla V100-SXM2-16GB (compute capability 7.0) is too old for PyTorch with CUDA 13, which needs compute " <>
          "capability 7.5 or newer"

      assert build([580, 65, 6], @volta) == {:cuda12, why}
      assert {:none, ^why} = build([580, 65, 6], @volta, "aarch64")
      # The best card counts.
      assert {:locked, _why} = build([580, 65, 6], @volta ++ @blackwell)
    end

    test "for a card that no locked build has code for" do
      for driver <- [[550, 54, 14], [580, 65, 6]] do
        assert build(driver, @pascal) ==
                 {:none,
                  "NVIDIA GeForce GTX 1080 (compute capability 6.1) is too old for PyTorch with CUDA 12, which needs " <>
                    "compute capability 7.0 or newer"}
      end
    end

    test "for a driver that does not tell its version" do
      assert build(nil) == {:locked, "NVIDIA's driver is there, and does not tell its version"}
      assert {:cuda12, _why} = build(nil, @volta)
    end

    test "is for the CUDA version of the lock that it names" do
      for {build, cuda} <- [locked: "cu13", cuda12: "cu12"] do
        profile = Enum.find(PackageProfile.all(), &PackageProfile.torch?/1)
        lock = profile |> PackageProfile.lock_paths(build) |> List.last() |> File.read!()
        assert lock =~ ~r/^nvidia-cudnn-#{cuda}==/m
      end
    end
  end

  describe "what there is" do
    defp smi(dir, script), do: executable(Path.join(dir, "nvidia-smi"), script)

    defp version_file(dir, text) do
      path = Path.join(dir, "version")
      File.write!(path, text)
      path
    end

    test "is told by nvidia-smi", %{tmp_dir: dir} do
      smi =
        smi(dir, """
        test "$*" = '--query-gpu=driver_version,compute_cap,name --format=csv,noheader' || exit 1
        echo '570.86.15, 12.0, NVIDIA GeForce RTX 5090'
        echo '570.86.15, 8.6, NVIDIA RTX A2000, 12GB'
        echo 'a warning on standard error' >&2
        """)

      assert NvidiaDriver.look("file", Path.join(dir, "none"), smi) == %NvidiaDriver{
               file: "file",
               driver: [570, 86, 15],
               cards: [{"NVIDIA GeForce RTX 5090", [12, 0]}, {"NVIDIA RTX A2000, 12GB", [8, 6]}]
             }
    end

    test "is told by the driver's file where there is no nvidia-smi, or it fails", %{tmp_dir: dir} do
      for {line, version} <- [
            {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024",
             [550, 54, 14]},
            {"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)",
             [580, 65, 6]},
            {"something else", nil}
          ] do
        file = version_file(dir, line <> "\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1)\n")
        assert %{driver: ^version, cards: []} = NvidiaDriver.look(file, file, nil)
        broken = smi(dir, "echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9")
        assert %{driver: ^version, cards: []} = NvidiaDriver.look(file, file, broken)
        no_answer = smi(dir, "echo '[N/A], [N/A], NVIDIA'")
        assert %{driver: ^version, cards: []} = NvidiaDriver.look(file, file, no_answer)
      end

      assert %{driver: nil, cards: []} = NvidiaDriver.look("file", Path.join(dir, "none"), nil)
    end
  end
end
