defmodule Chatterbex.LoadTest do
  # Not async: it measures the memory of the whole VM.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  @callers 100
  @each 10

  # Memory may not grow by more than this between the 200th and the 1,000th request. One request's audio is a
  # tenth of a megabyte: if a tenth of them were kept, it would show.
  @growth 8 * 1024 * 1024

  @tag timeout: 300_000
  test "1,000 requests from 100 processes: none lost, none crossed, memory flat" do
    server = start_server(max_queue: @callers)
    questions = for n <- 1..(@callers * @each), do: {n, "Take number #{n}."}
    answered = :counters.new(1, [])
    test = self()

    asked =
      questions
      |> Enum.chunk_every(@each)
      |> Enum.map(fn chunk ->
        Task.async(fn ->
          for {n, text} <- chunk do
            assert {:ok, audio} = Chatterbex.generate(server, text, seed: n)
            assert audio.metadata.seed == n
            :counters.add(answered, 1, 1)
            if :counters.get(answered, 1) == 200, do: send(test, {:at_200, resident_bytes()})
            {n, :erlang.md5(audio.samples)}
          end
        end)
      end)

    answers = asked |> Task.await_many(240_000) |> List.flatten()
    at_1000 = resident_bytes()
    assert_received {:at_200, at_200}

    assert length(answers) == @callers * @each
    assert at_1000 - at_200 < @growth

    IO.puts(
      "\n  memory at the 200th request #{div(at_200, 1024)} kB, at the 1,000th #{div(at_1000, 1024)} kB"
    )

    # All questions differ, and so do all answers; each is the one that its question gets when asked alone.
    assert answers |> Enum.uniq_by(&elem(&1, 1)) |> length() == @callers * @each

    for {n, md5} <- Enum.take_random(answers, 200) do
      assert {:ok, audio} = Chatterbex.generate(server, "Take number #{n}.", seed: n)
      assert :erlang.md5(audio.samples) == md5
    end

    await_idle(server)
  end

  test "the queue is bounded: what does not fit is refused at once, the rest is answered" do
    server = start_server(max_queue: 5, max_batch: 1)
    results = 1..50 |> Enum.map(fn n -> Task.async(fn -> Chatterbex.generate(server, "Number #{n}.") end) end)
    {spoken, refused} = results |> Task.await_many(60_000) |> Enum.split_with(&match?({:ok, _audio}, &1))

    assert length(spoken) >= 6
    assert refused != []

    for {:error, error} <- refused do
      assert %Error{reason: :overloaded, message: message} = error

      assert message =~
               ~r/is full: 6 requests are open, and 6 may be \(:max_queue is 5\). Try again later, or raise :max_queue.$/
    end

    for {:ok, audio} <- spoken, do: assert(Audio.duration(audio) > 0.3)
    assert {:ok, _audio} = Chatterbex.generate(server, "And again.")
  end
end
