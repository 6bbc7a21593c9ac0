defmodule Chatterbex.Speech.ConversionTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error, Model}
  alias Chatterbex.Speech.{Conversion, Plan}

  @rate 4_000

  # Noise, with a quiet place every second.
  defp recording(seconds) do
    :rand.seed(:exsss, {1, 2, 3})

    second =
      for n <- 1..@rate, into: "" do
        level = if n in 1_800..2_100, do: 0.001, else: 0.5
        <<level * (2 * :rand.uniform() - 1)::float-32-little>>
      end

    {:ok, recording} =
      Conversion.recording(%Audio{samples: :binary.copy(second, seconds), sample_rate: @rate})

    recording
  end

  defp reductions(work) do
    {:reductions, before} = Process.info(self(), :reductions)
    work.()
    {:reductions, after_all} = Process.info(self(), :reductions)
    after_all - before
  end

  test "a recording is cut where it is quiet, and nothing is lost" do
    recording = recording(60)
    parts = Conversion.cut(recording, %{piece: 3, search: 1.5, rest: 0.5})
    assert Enum.map_join(parts, & &1.samples) == recording.samples
    assert length(parts) > 20

    for part <- parts do
      assert part.seconds <= 3
      assert part.sample_rate == @rate
      assert part.peak > 0.4
    end

    # Each begins in the middle of a quiet place.
    for part <- tl(parts) do
      <<first::float-32-little, _rest::binary>> = part.samples
      assert abs(first) <= 0.001
    end
  end

  test "a short recording stays whole" do
    recording = recording(2)
    assert Conversion.cut(recording, %{piece: 3, search: 1, rest: 0.5}) == [recording]
  end

  test "the work to cut grows linearly with the length" do
    lengths = %{piece: 2, search: 1, rest: 0.5}
    [short, long] = Enum.map([40, 160], &recording/1)
    of_short = reductions(fn -> Conversion.cut(short, lengths) end)
    of_long = reductions(fn -> Conversion.cut(long, lengths) end)
    assert of_long < 6 * of_short
  end

  test "the time to read and cut counts" do
    {:ok, model} = Model.fetch(:conversion)

    plan = %Plan{
      server: :nobody,
      model: model,
      parallel: 1,
      max_characters: 100,
      timeout: 1_000,
      deadline: nil,
      priority: :normal,
      options: %{},
      text: nil,
      resume: false
    }

    started = System.monotonic_time(:millisecond) - 1_001

    assert {:error, %Error{reason: :timeout, message: message}} =
             Conversion.convert(plan, recording(1), started)

    assert message =~
             ~r/^reading the recording took \d+ ms, and :timeout allows 1000 ms for all. Raise :timeout.$/

    started = System.monotonic_time(:millisecond)
    assert {:ok, %{timeout: left}} = Plan.spend(plan, started - 400)
    assert left <= 600
    assert {:ok, %{timeout: :infinity}} = Plan.spend(%{plan | timeout: :infinity}, started - 400)
  end
end
