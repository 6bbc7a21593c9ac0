defmodule Chatterbex.AbandonedTest do
  # Not async: it counts the processes and measures the memory of the whole VM.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  test "a thousand streams abandoned at random moments leave nothing behind" do
    server = start_server(max_queue: 200)
    first_chunk(server)
    {before, usual} = first_chunk(server)
    %{live: live} = Chatterbex.Native.status()
    processes = length(Process.list())
    # The first hundreds fill the allocators' own caches.
    abandon(server, 1..300)
    memory = resident_bytes()
    abandon(server, 301..1000)
    grown = resident_bytes() - memory
    IO.puts("\n  memory grew by #{div(grown, 1024)} kB over 700 abandoned streams")
    assert grown < 16 * 1024 * 1024
    assert length(Process.list()) <= processes + 2
    assert %{queue: %{requests: requests, running: running}, monitors: monitors} = :sys.get_state(server)
    assert {requests, monitors, running} == {%{}, %{}, %{}}
    assert %{live: ^live} = Chatterbex.Native.status()
    {later, work} = first_chunk(server)
    assert later.samples == before.samples
    assert work < 2 * usual
  end

  # The first chunk and its cost, in reductions: time would vary on a busy machine.
  defp first_chunk(server) do
    before = reductions(server)
    [chunk] = server |> Chatterbex.stream("The first sound.", seed: 1) |> Enum.take(1)
    {:ok, _info} = Chatterbex.info(server: server)
    work = reductions(server) - before
    await_idle(server, 30_000)
    {chunk, work}
  end

  defp reductions(process) do
    {:reductions, count} = Process.info(process, :reductions)
    count
  end

  # Some are halted after a few chunks, some lose their consumer, some are cancelled.
  defp abandon(server, numbers) do
    numbers
    |> Task.async_stream(
      fn number ->
        :rand.seed(:exsss, {ExUnit.configuration()[:seed], number, 0})
        text = "Number #{number}. And on. On."

        case :rand.uniform(3) do
          1 ->
            server |> Chatterbex.stream(text) |> Enum.take(:rand.uniform(4))

          2 ->
            {taker, monitor} = spawn_monitor(fn -> server |> Chatterbex.stream(text) |> Stream.run() end)
            for _yield <- 1..:rand.uniform(200), do: :erlang.yield()
            Process.exit(taker, :kill)
            receive(do: ({:DOWN, ^monitor, :process, _pid, _reason} -> :ok))

          3 ->
            {:ok, ref} = Chatterbex.stream_to(text, self(), server: server)
            if :rand.uniform(2) == 1, do: receive(do: ({:chatterbex, ^ref, _message} -> :ok))
            :ok = Chatterbex.cancel(ref)
        end
      end,
      max_concurrency: 20,
      timeout: 60_000
    )
    |> Stream.run()

    await_idle(server, 30_000)
  end
end
