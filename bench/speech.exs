Code.require_file("support.exs", __DIR__)

Bench.title("The built-in voice: seconds of work per second of audio")

server = Bench.start(:hibari)

for {what, text} <- [
      {"one word", "Hello."},
      {"one sentence", "The quick brown fox jumps over the lazy dog."},
      {"ten sentences", String.duplicate("The quick brown fox jumps over the lazy dog. ", 10)}
    ] do
  {:ok, audio} = Chatterbex.generate(server, text, seed: 1)
  seconds = Chatterbex.Audio.duration(audio)

  %{speak: ms} =
    Bench.pairs([speak: fn -> {:ok, _audio} = Chatterbex.generate(server, text, seed: 1) end], 20)

  Bench.row(
    "#{what} (#{Float.round(seconds, 2)} s of audio)",
    "RTF #{Float.round(ms / 1000 / seconds, 4)}, #{Bench.ms(ms)}"
  )
end

GenServer.stop(server)
