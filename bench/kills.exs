# Kills the process of an isolated server again and again while many callers use it, and counts the outcomes of their
# requests:
#
#     mix run bench/kills.exs [KILLS] [CALLERS] [PAUSE]
#
# A kill comes at most PAUSE milliseconds after the process starts. If that is less than the model needs to load, it never
# speaks, and its server gives up after `load_timeout`.
Code.require_file("support.exs", __DIR__)

defmodule Bench.Kills do
  @moduledoc false

  @texts for n <- 1..40, do: "Sentence number #{n} is spoken. And so is this one, which is number #{n * 7}."

  def run(kills, callers, pause) do
    Logger.configure(level: :none)
    here = Bench.start(:hibari)

    expected =
      for text <- @texts, kind <- [:generate, :stream], into: %{}, do: {{kind, text}, speak(kind, here, text)}

    :ok = Chatterbex.stop(server: here)
    {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
    :ok = Chatterbex.await_ready(server: server)
    table = :ets.new(:answers, [:public, :bag, write_concurrency: true])
    stop = :atomics.new(1, [])

    tasks =
      for n <- 1..callers do
        kind = if rem(n, 5) == 0, do: :stream, else: :generate
        Task.async(fn -> ask(kind, server, expected, table, stop) end)
      end

    before = memory()
    states = for n <- 1..kills, do: kill(server, n, kills, before, table, pause)
    :atomics.put(stop, 1, 1)
    Task.await_many(tasks, 300_000)
    report(states, :ets.tab2list(table), before, server)
  end

  defp ask(kind, server, expected, table, stop) do
    text = Enum.random(@texts)
    {microseconds, answer} = :timer.tc(fn -> speak(kind, server, text) end)

    result =
      cond do
        answer == expected[{kind, text}] -> :right
        is_binary(answer) -> :wrong
        true -> {:lost, answer}
      end

    :ets.insert(table, {kind, result, microseconds / 1000, make_ref()})
    if :atomics.get(stop, 1) == 0, do: ask(kind, server, expected, table, stop)
  end

  defp speak(:generate, server, text) do
    case Chatterbex.generate(server, text, seed: 1, timeout: :infinity) do
      {:ok, audio} -> :crypto.hash(:sha256, audio.samples)
      {:error, error} -> {error.reason, error.message}
    end
  end

  defp speak(:stream, server, text) do
    chunks = Chatterbex.stream(server, text, seed: 1, resume: true, timeout: :infinity)
    chunks |> Enum.map(& &1.samples) |> IO.iodata_to_binary() |> then(&:crypto.hash(:sha256, &1))
  rescue
    error in Chatterbex.Error -> {error.reason, error.message}
  end

  defp kill(server, n, kills, before, table, pause) do
    Process.sleep(:rand.uniform(pause))
    status = kill(server)

    if rem(n, max(div(kills, 10), 1)) == 0 do
      results = for {_kind, result, _ms, _ref} <- :ets.tab2list(table), do: result
      right = Enum.count(results, &(&1 == :right))
      said = "#{right} of #{length(results)}; #{megabytes(memory() - before)}"
      Bench.row("after #{n} kills: right answers; memory of this VM", said)
    end

    status
  end

  defp kill(server) do
    case Chatterbex.info(server: server) do
      {:ok, %{process: %{os_pid: nil}}} ->
        Process.sleep(10)
        kill(server)

      {:ok, %{status: status, process: %{os_pid: pid}}} ->
        {_output, 0} = System.cmd("kill", ["-KILL", pid], stderr_to_stdout: true)
        status
    end
  end

  defp report(states, answers, before, server) do
    {:ok, info} = Chatterbex.info(server: server)
    Bench.row("kills, by what the server was doing", inspect(Enum.frequencies(states)))
    Bench.row("processes that died", info.process.died)

    for kind <- [:generate, :stream] do
      of_kind = for {^kind, result, _ms, _ref} <- answers, do: result
      lost = for {:lost, why} <- of_kind, do: why
      Bench.row("#{kind}: requests", length(of_kind))

      Bench.row(
        "#{kind}: right, mixed up, lost",
        "#{Enum.count(of_kind, &(&1 == :right))}, #{Enum.count(of_kind, &(&1 == :wrong))}, #{length(lost)}"
      )

      for {why, count} <- Enum.frequencies(lost), do: Bench.row("  #{count} times", inspect(why))
    end

    times = Enum.sort(for {_kind, _result, ms, _ref} <- answers, do: ms)

    for percent <- [50, 90, 99, 100],
        do: Bench.row("latency, #{percent} %", Bench.ms(percentile(times, percent)))

    Bench.row("memory of this VM, grown", megabytes(memory() - before))

    Bench.row(
      "processes, messages in the server's mailbox",
      inspect({length(Process.list()), Process.info(server, :message_queue_len)})
    )
  end

  defp percentile(sorted, percent),
    do: Enum.at(sorted, min(div(length(sorted) * percent, 100), length(sorted) - 1))

  defp megabytes(bytes), do: "#{Float.round(bytes / 1_048_576, 1)} MB"

  defp memory do
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    :erlang.memory(:total)
  end
end

Bench.title("An isolated server whose process is killed at random moments")

[kills, callers, pause] = Bench.arguments([200, 50, 6000])
Bench.Kills.run(kills, callers, pause)
