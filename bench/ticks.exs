Code.require_file("support.exs", __DIR__)

defmodule Bench.Ticker do
  @moduledoc false
  # Ticks every millisecond until it is stopped, and returns the longest gap between two ticks in milliseconds.

  def start do
    Task.async(fn ->
      Process.flag(:priority, :normal)
      tick(System.monotonic_time(:microsecond), 0)
    end)
  end

  def stop(task) do
    send(task.pid, :stop)
    Task.await(task) / 1000
  end

  defp tick(last, longest) do
    receive do
      :stop -> longest
    after
      1 ->
        now = System.monotonic_time(:microsecond)
        tick(now, max(longest, now - last))
    end
  end
end

Bench.title("The schedulers: the longest gap of a process that ticks every millisecond")

server = Bench.start(:hibari)
text = String.duplicate("The quick brown fox jumps over the lazy dog. ", 20)

for {what, work} <- [
      {"idle, 5 s", fn -> Process.sleep(5_000) end},
      {"while it speaks 20 sentences, 10 times",
       fn -> for(_n <- 1..10, do: {:ok, _audio} = Chatterbex.generate(server, text)) end}
    ] do
  ticker = Bench.Ticker.start()
  work.()
  Bench.row(what, Bench.ms(Bench.Ticker.stop(ticker)))
end

GenServer.stop(server)
