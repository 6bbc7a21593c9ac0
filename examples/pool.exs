# Many requests at once: one server, a bounded queue, nothing lost.
#
#     mix run examples/pool.exs

{:ok, server} = Chatterbex.start_link(max_queue: 20)
:ok = Chatterbex.await_ready(server: server)

# A refused request is tried again after a moment.
speak = fn speak, number ->
  case Chatterbex.generate(server, "This is request number #{number}.", seed: number) do
    {:ok, audio} ->
      audio

    {:error, %{reason: :overloaded}} ->
      Process.sleep(50)
      speak.(speak, number)
  end
end

started = System.monotonic_time(:millisecond)

seconds =
  1..100
  |> Task.async_stream(&speak.(speak, &1), max_concurrency: 40, timeout: 60_000)
  |> Enum.map(fn {:ok, audio} -> Chatterbex.Audio.duration(audio) end)
  |> Enum.sum()

took = (System.monotonic_time(:millisecond) - started) / 1000
IO.puts("100 requests, #{Float.round(seconds, 1)} s of audio in #{Float.round(took, 1)} s")
