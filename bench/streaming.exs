Code.require_file("support.exs", __DIR__)

Bench.title("The built-in voice: time to first audio, streamed and whole")

server = Bench.start(:hibari)

for {what, sentences} <- [{"one sentence", 1}, {"ten sentences", 10}, {"a page of 40 sentences", 40}] do
  text = String.duplicate("The quick brown fox jumps over the lazy dog. ", sentences)

  times =
    Bench.pairs(
      [
        streamed: fn -> [_chunk] = server |> Chatterbex.stream(text, seed: 1) |> Enum.take(1) end,
        whole: fn -> {:ok, _audio} = Chatterbex.generate(server, text, seed: 1) end
      ],
      10
    )

  Bench.row("#{what}: first chunk of the stream", Bench.ms(times.streamed))
  Bench.row("#{what}: whole audio", Bench.ms(times.whole))
  Bench.row("#{what}: streamed / whole", Float.round(times.streamed / times.whole, 3))
end

GenServer.stop(server)
