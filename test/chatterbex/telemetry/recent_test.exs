defmodule Chatterbex.Telemetry.RecentTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp, only: [start_fake: 1]

  alias Chatterbex.LiveDashboard.Servers
  alias Chatterbex.Telemetry
  alias Chatterbex.Telemetry.Recent

  setup do
    name = :"recent_#{System.unique_integer([:positive])}"
    start_supervised!({Recent, name: name})
    %{recent: name, server: :"speech_#{System.unique_integer([:positive])}"}
  end

  # Events of other tests' servers arrive too.
  defp figures(recent, server), do: Enum.find(Recent.all(recent), &(&1.server == server))

  defp ended(call, server, measurements, error \\ nil) do
    Telemetry.execute([:chatterbex, call, :stop], Map.put(measurements, :duration, 1), %{
      server: server,
      error: error
    })
  end

  test "calls, errors, fallbacks and crashes are counted by server", %{recent: recent, server: server} do
    start_fake(name: server, device: "mps")
    assert %{calls: 0} = figures(recent, server)
    assert {:ok, _audio} = Chatterbex.generate(server, "notice")
    assert {:error, _error} = Chatterbex.generate(server, "fail")
    assert [_ | _] = server |> Chatterbex.stream("One. Two.") |> Enum.to_list()
    Telemetry.execute([:chatterbex, :peer, :down], %{}, %{server: server})

    assert %{calls: 3, errors: 1, fallbacks: 1, crashes: 1, first_audio: first} = figures(recent, server)
    assert first > 0

    assert [row] = Servers.rows([figures(recent, server)])

    assert %{status: :ready, model: ":fake", device: "cpu instead of mps", open: 0, waiting: 0, running: 0} =
             row

    assert row.name == inspect(server)
  end

  test "speeds are medians of the last calls", %{recent: recent, server: server} do
    for rtf <- List.duplicate(9.0, 100) ++ List.duplicate(0.5, 49) ++ List.duplicate(0.7, 51),
        do: ended(:generate, server, %{rtf: rtf, tokens_per_second: 10 * rtf})

    ended(:stream, server, %{first_audio: System.convert_time_unit(250, :millisecond, :native)})
    assert %{rtf: 0.7, tokens_per_second: 7.0, first_audio: 250.0, calls: 201} = figures(recent, server)
  end

  test "the number of servers is bounded", %{recent: recent} do
    for number <- 1..250, do: ended(:generate, :"server_#{number}", %{})
    all = Enum.map(Recent.all(recent), & &1.server)
    assert length(all) == 200
    assert :server_250 in all
    refute :server_1 in all
  end

  test "a server that is gone is shown as such", %{recent: recent, server: server} do
    ended(:generate, server, %{rtf: 0.5})
    assert [%{status: :not_running, rtf: 0.5, open: nil}] = Servers.rows([figures(recent, server)])
    assert Servers.figure(nil, 2) == ""
    assert Servers.figure(0.456, 2) == "0.46"
    assert Servers.figure(12, 0) == "12"
  end
end
