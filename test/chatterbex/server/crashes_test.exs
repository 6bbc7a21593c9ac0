defmodule Chatterbex.Server.CrashesTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Server.Crashes

  @segv {:exit_status, 139}
  @kill {:exit_status, 137}

  defp delays(crashes, reason, loading?, n) do
    {delays, _crashes} =
      Enum.map_reduce(1..n, crashes, fn _n, crashes -> Crashes.add(crashes, reason, loading?) end)

    delays
  end

  test "the model is reloaded at once, then with growing delays up to a limit" do
    assert delays(%Crashes{}, @segv, false, 9) == [0, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]
    assert List.last(delays(%Crashes{}, @segv, false, 5_000)) == 5000
  end

  test "loading is given up after three crashes in a row" do
    assert delays(%Crashes{}, @segv, true, 3) == [0, 200, :give_up]
    {_delay, crashes} = Crashes.add(%Crashes{}, @segv, true)
    {_delay, crashes} = Crashes.add(crashes, @segv, true)
    assert {200, _crashes} = crashes |> Crashes.loaded() |> Crashes.add(@segv, true)
    {_delay, crashes} = Crashes.add(crashes, @kill, true)
    assert {:give_up, %Crashes{loads: 4} = crashes} = Crashes.add(crashes, @segv, true)
    assert Crashes.loads(crashes) == "died 4 times, the last time by SIGSEGV"
  end

  test "kills from outside never give up loading" do
    assert :give_up not in delays(%Crashes{}, @kill, true, 1_000)
    assert :give_up not in delays(%Crashes{}, {:exit_status, 143}, true, 1_000)
  end

  test "a text is blamed after two crashes, or five kills from outside" do
    refute Crashes.guilty?([@segv])
    assert Crashes.guilty?([@segv, @segv])
    refute Crashes.guilty?([@kill, @segv, @kill, @kill])
    refute Crashes.guilty?(List.duplicate({:exit_status, 143}, 4))
    assert Crashes.guilty?(List.duplicate(@kill, 5))
    assert Crashes.guilty?([{:failed, "no answer"}, {:exit_status, 1}])
  end

  test "exit reasons have familiar names" do
    assert Enum.map(
             [
               @segv,
               @kill,
               {:exit_status, 134},
               {:exit_status, 7},
               {:exit_status, 157},
               {:failed, "it hung up"}
             ],
             &Crashes.describe/1
           ) ==
             ["SIGSEGV", "SIGKILL", "SIGABRT", "exit status 7", "signal 29", "it hung up"]
  end
end
