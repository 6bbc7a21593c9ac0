# Mixed traffic against an isolated pool with the built-in voice, until the number of requests or the time is reached:
#
#     mix run bench/soak.exs [--minutes 120] [--requests 100000] [--callers 20] [--size 2] [--kill-every 10]
#
# --kill-every is in seconds; 0 kills nothing. The right answer to every request is known: audio is compared with that of an
# undisturbed server.
Code.require_file("support.exs", __DIR__)

defmodule Bench.Soak do
  @moduledoc false

  @texts for n <- 1..20, do: "This is number #{n}."
  @long Enum.map_join(1..5, " ", &"And this is sentence #{&1} of a longer text.")
  @kinds [generate: 60, long: 5, stream: 15, halt: 5, cancel: 5, abandon: 5, clone: 2, convert: 2, bad: 1]

  def run(options) do
    Logger.configure(level: :none)
    pool = Bench.Soak.Pool
    {:ok, _pool} = Chatterbex.Pool.start_link(name: pool, size: options[:size], model: :hibari, threads: 1)
    :ok = Chatterbex.await_ready(server: pool, timeout: 120_000)

    expected =
      Map.new([@long | @texts], fn text -> {text, audio(Chatterbex.generate(pool, text, seed: 1))} end)

    table = :ets.new(:soak, [:public, :bag, write_concurrency: true])
    counter = :counters.new(1, [])
    ends = now() + options[:minutes] * 60_000

    context = %{
      pool: pool,
      expected: expected,
      table: table,
      counter: counter,
      ends: ends,
      requests: options[:requests]
    }

    callers = for _n <- 1..options[:callers], do: Task.async(fn -> loop(context) end)
    if options[:kill_every] > 0, do: spawn_link(fn -> kill(pool, options[:kill_every] * 1000) end)
    watcher = Task.async(fn -> watch(context, []) end)
    Task.await_many(callers, :infinity)
    report(:ets.tab2list(table), Task.await(watcher, :infinity), pool)
  end

  defp over?(context),
    do: now() >= context.ends or :counters.get(context.counter, 1) >= context.requests

  defp loop(context) do
    unless over?(context) do
      :counters.add(context.counter, 1, 1)
      kind = pick()
      {microseconds, result} = :timer.tc(fn -> ask(kind, context) end)
      :ets.insert(context.table, {kind, result, microseconds / 1000, make_ref()})
      loop(context)
    end
  end

  defp pick do
    Enum.reduce_while(@kinds, :rand.uniform(100), fn {kind, share}, left ->
      if left <= share, do: {:halt, kind}, else: {:cont, left - share}
    end)
  end

  defp ask(:generate, context), do: whole(context, Enum.random(@texts))
  defp ask(:long, context), do: whole(context, @long)

  defp ask(:stream, context) do
    text = Enum.random(@texts)
    chunks = Chatterbex.stream(context.pool, text, seed: 1, resume: true)
    compare(chunks |> Enum.map(& &1.samples) |> IO.iodata_to_binary(), context.expected[text])
  rescue
    error in Chatterbex.Error -> {:lost, error.reason}
  end

  defp ask(:halt, context) do
    [_first] = context.pool |> Chatterbex.stream(@long, resume: true) |> Enum.take(1)
    :right
  rescue
    error in Chatterbex.Error -> {:lost, error.reason}
  end

  defp ask(:cancel, context) do
    {:ok, ref} = Chatterbex.stream_to(@long, self(), server: context.pool, resume: true)
    Process.sleep(:rand.uniform(50))
    :ok = Chatterbex.cancel(ref)
    last(ref)
  end

  defp ask(:abandon, context) do
    {caller, monitor} = spawn_monitor(fn -> Chatterbex.generate(context.pool, @long) end)
    Process.sleep(:rand.uniform(50))
    Process.exit(caller, :kill)
    receive(do: ({:DOWN, ^monitor, :process, _pid, _reason} -> :right))
  end

  # The built-in voice supports neither, and must say so.
  defp ask(:clone, context) do
    {:ok, audio} = Chatterbex.Audio.silence(1_000)
    refused(Chatterbex.Voice.clone(audio, server: context.pool), :not_supported)
  end

  defp ask(:convert, context) do
    {:ok, audio} = Chatterbex.Audio.from_wav(wav())
    refused(Chatterbex.convert(audio, server: context.pool, voice: "heart"), :not_supported)
  end

  defp ask(:bad, context), do: refused(Chatterbex.generate(context.pool, "..."), :invalid_text)

  defp wav do
    samples = for n <- 1..24_000, into: "", do: <<:math.sin(n / 20) * 0.5::float-32-little>>
    {:ok, wav} = Chatterbex.Audio.to_wav(%Chatterbex.Audio{samples: samples, sample_rate: 24_000})
    wav
  end

  defp whole(context, text) do
    case Chatterbex.generate(context.pool, text, seed: 1) do
      {:ok, audio} -> compare(audio.samples, context.expected[text])
      {:error, error} -> {:lost, error.reason}
    end
  end

  defp last(ref) do
    receive do
      {:chatterbex, ^ref, {:chunk, _audio}} -> last(ref)
      {:chatterbex, ^ref, :done} -> :right
      {:chatterbex, ^ref, {:error, %{reason: :cancelled}}} -> :right
      {:chatterbex, ^ref, {:error, error}} -> {:lost, error.reason}
    after
      60_000 -> {:lost, :no_last_message}
    end
  end

  defp refused({:error, %{reason: reason}}, reason), do: :right
  defp refused({:error, error}, _reason), do: {:lost, error.reason}
  defp refused({:ok, _audio}, _reason), do: :wrong

  defp compare(same, same), do: :right
  defp compare(_samples, _expected), do: :wrong

  defp audio({:ok, audio}), do: audio.samples

  defp kill(pool, every) do
    Process.sleep(every)

    with {:ok, %{members: members}} <- Chatterbex.info(server: pool),
         [_ | _] = pids <- for(%{process: %{os_pid: pid}} when pid != nil <- members, do: pid),
         do: System.cmd("kill", ["-KILL", Enum.random(pids)], stderr_to_stdout: true)

    kill(pool, every)
  end

  # Records the megabytes of this VM every five seconds, and prints the progress every minute.
  defp watch(context, seen) do
    if rem(length(seen), 12) == 11,
      do: IO.puts(:stderr, "#{:counters.get(context.counter, 1)} requests so far")

    for process <- Process.list(), do: :erlang.garbage_collect(process)
    table = :ets.info(context.table, :memory) * :erlang.system_info(:wordsize)
    seen = [{now(), (:erlang.memory(:total) - table) / 1_048_576} | seen]
    if over?(context), do: seen, else: Process.sleep(5_000) && watch(context, seen)
  end

  defp report(answers, seen, pool) do
    {:ok, info} = Chatterbex.info(server: pool)
    Bench.row("requests", length(answers))
    Bench.row("mixed up", Enum.count(answers, &(elem(&1, 1) == :wrong)))
    lost = for {kind, {:lost, reason}, _ms, _ref} <- answers, do: {kind, reason}
    Bench.row("lost", length(lost))

    for {{kind, reason}, count} <- Enum.frequencies(lost),
        do: Bench.row("  #{kind}: #{inspect(reason)}", count)

    Bench.row("processes that died", info.members |> Enum.map(& &1.process.died) |> Enum.sum())
    Bench.row("open requests at the end", info.queue.open)
    # The first quarter is for warming up.
    settled = seen |> Enum.reverse() |> Enum.drop(div(length(seen), 4))
    Bench.row("memory of this VM, slope in MB an hour", Float.round(slope(settled) * 3_600_000, 2))

    Bench.row(
      "memory of this VM, from and to in MB",
      inspect({Float.round(elem(hd(settled), 1), 1), Float.round(elem(List.last(settled), 1), 1)})
    )

    for {kind, _share} <- @kinds,
        times = Enum.sort(for {^kind, :right, ms, _ref} <- answers, do: ms),
        times != [] do
      values =
        for percent <- [50, 90, 99, 100],
            do: round(Enum.at(times, min(div(length(times) * percent, 100), length(times) - 1)))

      Bench.row("#{kind}: #{length(times)}; ms at 50, 90, 99, 100 %", inspect(values, charlists: :as_lists))
    end
  end

  defp slope([_one]), do: 0.0

  defp slope(points) do
    n = length(points)
    {xs, ys} = Enum.unzip(points)
    {x, y} = {Enum.sum(xs) / n, Enum.sum(ys) / n}
    over = for({a, b} <- points, do: (a - x) * (b - y)) |> Enum.sum()
    over / max(for(a <- xs, do: (a - x) * (a - x)) |> Enum.sum(), 1)
  end

  defp now, do: System.monotonic_time(:millisecond)
end

switches = [minutes: :integer, requests: :integer, callers: :integer, size: :integer, kill_every: :integer]
{given, []} = OptionParser.parse!(System.argv(), strict: switches)
options = Keyword.merge([minutes: 120, requests: 100_000, callers: 20, size: 2, kill_every: 10], given)
Bench.title("Soak: mixed traffic against an isolated pool, #{inspect(options)}")
Bench.Soak.run(options)
