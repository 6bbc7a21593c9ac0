defmodule Chatterbex.Audio.AbandonedTest do
  # Not async: it leaves one dirty scheduler for the whole VM.
  use ExUnit.Case, async: false

  alias Chatterbex.{Audio, TestHelp}

  setup do
    before = :erlang.system_flag(:dirty_cpu_schedulers_online, 1)
    on_exit(fn -> :erlang.system_flag(:dirty_cpu_schedulers_online, before) end)
  end

  # Each takes more than a minute if nothing stops it, longer than this test may run.
  @tag timeout: 30_000
  test "work ends when the process that asked for it is killed" do
    {:ok, hours} = Audio.silence(2_000_000, sample_rate: 24_000)

    for work <- [
          resample: fn -> Audio.resample(hours, 24_001) end,
          opus_encode: fn -> Audio.to_format(hours, :opus, bitrate: 500_000) end
        ] do
      {name, work} = work
      {pid, monitor} = spawn_monitor(work)

      TestHelp.await(fn ->
        match?({:current_function, {_, ^name, _}}, Process.info(pid, :current_function))
      end)

      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
      # It needs the scheduler that the work occupies.
      assert Audio.to_pcm16(%Audio{samples: <<0::32>>, sample_rate: 8_000}) == {:ok, <<0::16>>}
    end
  end
end
