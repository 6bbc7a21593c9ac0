Code.require_file("support.exs", __DIR__)

Bench.title("Isolation: the same request in this VM and in a separate process")

Application.put_env(:chatterbex, :models, idle: [python: "idle_model:IdleModel", path: __DIR__])
servers = for isolation <- [:none, :peer], do: {isolation, Bench.start(:idle, isolation: isolation)}

for {what, seconds} <- [{"a short text, no audio to speak of", "0.001"}, {"10 s of audio", "10"}] do
  ask = fn server -> {:ok, _audio} = Chatterbex.generate(server, seconds) end
  times = Bench.pairs(for({isolation, server} <- servers, do: {isolation, fn -> ask.(server) end}), 300)
  for {isolation, ms} <- times, do: Bench.row("#{what}: isolation: :#{isolation}", Bench.ms(ms))
  Bench.row("#{what}: added", Bench.ms(times.peer - times.none))
end

for {_isolation, server} <- servers, do: GenServer.stop(server)

text = String.duplicate("The quick brown fox jumps over the lazy dog. ", 10)

for isolation <- [:none, :peer] do
  pair = for _n <- 1..2, do: Bench.start(:hibari, isolation: isolation, threads: 1)
  speak = fn server -> {:ok, _audio} = Chatterbex.generate(server, text) end
  Enum.each(pair, speak)

  times =
    Bench.pairs(
      [
        one: fn -> speak.(hd(pair)) end,
        both: fn -> pair |> Enum.map(&Task.async(fn -> speak.(&1) end)) |> Task.await_many(:infinity) end
      ],
      5
    )

  Bench.row("isolation: :#{isolation}, one server speaks", Bench.ms(times.one))
  Bench.row("isolation: :#{isolation}, two servers speak at once", Bench.ms(times.both))
  Enum.each(pair, &GenServer.stop/1)
end
