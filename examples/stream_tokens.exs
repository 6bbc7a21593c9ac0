# Speaks a language model's output as it arrives.
#
#     mix run examples/stream_tokens.exs

text =
  "The rain had stopped. Above the hills, the sky turned a pale green. Nobody spoke; there was nothing to say."

# Stands for a language model: a few characters every 30 milliseconds.
tokens =
  text
  |> String.graphemes()
  |> Enum.chunk_every(4)
  |> Stream.map(fn token ->
    Process.sleep(30)
    Enum.join(token)
  end)

:ok = Chatterbex.await_ready()
started = System.monotonic_time(:millisecond)

for audio <- Chatterbex.stream(tokens), text = audio.metadata[:text] do
  after_ms = System.monotonic_time(:millisecond) - started
  IO.puts("#{after_ms} ms: #{Float.round(Chatterbex.Audio.duration(audio), 2)} s of audio, #{inspect(text)}")
end
