defmodule Chatterbex.DeviceTest do
  # Not async: it changes an environment variable, which all tests share.
  use ExUnit.Case, async: false

  import Chatterbex.FakeHome, only: [make: 2, say: 1, looks: 1]

  alias Chatterbex.{Device, SetupHelp}

  @moduletag :tmp_dir

  @found %{"device" => "cuda:1", "name" => "NVIDIA H100", "available" => true, "memory" => 85_899_345_920}

  setup do
    before = System.get_env("CHATTERBEX_HOME")
    on_exit(fn -> System.put_env(%{"CHATTERBEX_HOME" => before}) end)
  end

  defp devices(home) do
    System.put_env("CHATTERBEX_HOME", home)
    Chatterbex.devices()
  end

  test "the devices of PyTorch are returned, and PyTorch is asked once", %{tmp_dir: dir} do
    home = make(dir, %{devices: say(%{"event" => "devices", "devices" => [@found], "facts" => %{}})})

    System.put_env("CHATTERBEX_HOME", home)

    for devices <- Task.await_many(for _n <- 1..5, do: Task.async(&Chatterbex.devices/0)) do
      assert devices == [
               %{
                 device: {:cuda, 1},
                 name: "NVIDIA H100",
                 available: true,
                 reason: nil,
                 warning: nil,
                 memory: 85_899_345_920
               }
             ]
    end

    assert looks(home) == 1
  end

  test "a broken PyTorch is reported, and not asked again at once", %{tmp_dir: dir} do
    home = make(dir, %{devices: "echo 'libcuda is broken' >&2; exit 1"})
    assert [%{device: :cpu, available: true}, mps, cuda] = devices(home)
    assert devices(home) == [hd(devices(home)), mps, cuda]
    assert looks(home) == 1
    refute mps.available or cuda.available
  end

  test "without PyTorch, the reason has the setup command if the machine could have the device" do
    why = fn device -> "set it up for #{device}" end
    mac = SetupHelp.machine([], os: :macos, architecture: "aarch64")

    linux =
      SetupHelp.machine([],
        os: :linux,
        architecture: "x86_64",
        nvidia: %Chatterbex.Setup.NvidiaDriver{driver: [580, 65, 6]}
      )

    assert [
             %{device: :cpu, available: true, reason: nil},
             %{device: :mps, reason: mps},
             %{device: :cuda, reason: cuda}
           ] = Device.without_torch(mac, why)

    assert mps == "set it up for mps"
    assert cuda =~ "macOS has no driver"

    assert [_cpu, %{reason: mps}, %{reason: cuda}] = Device.without_torch(linux, why)
    assert mps == "MPS needs macOS on Apple Silicon; this is Linux on x86_64"
    assert cuda == "set it up for cuda"
  end

  test "on this machine" do
    assert [%{device: :cpu, available: true, reason: nil} | others] = Chatterbex.devices()
    assert Enum.all?(others, &(&1.available == is_nil(&1.reason)))
  end

  test "with nothing set up it is quick and does not fail", %{tmp_dir: dir} do
    assert [%{device: :cpu, available: true}, %{device: :mps}, %{device: :cuda}] =
             devices(Path.join(dir, "nothing"))
  end
end
