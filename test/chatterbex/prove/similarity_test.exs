defmodule Chatterbex.Prove.SimilarityTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Audio
  alias Chatterbex.Prove.Similarity

  # A second of a tone that comes and goes, with `change` made to each sample.
  defp audio(change \\ fn _n, sample -> sample end, options \\ []) do
    samples =
      for n <- 0..(Keyword.get(options, :frames, 24_000) - 1), into: "" do
        level = 0.2 * (1 + :math.sin(n * 2 * :math.pi() * Keyword.get(options, :pace, 3) / 24_000))
        <<change.(n, level * :math.sin(n * 2 * :math.pi() * 440 / 24_000))::float-32-little>>
      end

    %Audio{samples: samples, sample_rate: 24_000}
  end

  defp compare(one, other) do
    [first, second] = for audio <- [one, other], do: {audio, elem(Audio.loudness(audio), 1)}
    Similarity.compare(first, second)
  end

  test "the same" do
    similarity = compare(audio(), audio())
    assert %{equal: true, difference: nil} = similarity
    assert {similarity.seconds, similarity.loudness} == {0.0, 0.0}
    assert_in_delta similarity.envelope, 1.0, 1.0e-9
    assert Similarity.same?(similarity)
  end

  test "the last bits" do
    similarity = compare(audio(), audio(fn n, sample -> sample * (1 + 1.0e-3 * rem(n, 2)) end))
    refute similarity.equal
    # Half of the samples are 60 dB away.
    assert_in_delta similarity.difference, -63, 0.1
    assert Similarity.same?(similarity)
  end

  test "a different phase is inaudible" do
    similarity = compare(audio(), audio(fn _n, sample -> -sample end))
    assert_in_delta similarity.difference, 6.02, 0.01
    assert Similarity.same?(similarity)
  end

  test "longer, louder or rhythmically different audio is different speech" do
    longer = compare(audio(), audio(fn _n, sample -> sample end, frames: 24_504))
    assert_in_delta longer.seconds, 0.021, 1.0e-9
    assert longer.difference == nil
    refute Similarity.same?(longer)
    assert Similarity.same?(compare(audio(), audio(fn _n, sample -> sample end, frames: 24_480)))

    louder = compare(audio(), audio(fn _n, sample -> sample * 1.06 end))
    assert_in_delta louder.loudness, 0.506, 0.001
    refute Similarity.same?(louder)
    assert Similarity.same?(compare(audio(), audio(fn _n, sample -> sample * 0.95 end)))

    rhythm = compare(audio(), audio(fn _n, sample -> sample end, pace: 5))
    assert rhythm.envelope < 0.5
    assert abs(rhythm.loudness) < 0.5
    refute Similarity.same?(rhythm)
  end

  test "audio shorter than a frame must be equal" do
    short = audio(fn _n, sample -> sample end, frames: 400)
    assert %{envelope: nil} = similarity = compare(short, audio(fn _n, sample -> -sample end, frames: 400))
    refute Similarity.same?(similarity)
    assert Similarity.same?(compare(short, short))
  end

  test "silence only matches silence" do
    silence = audio(fn _n, _sample -> 0.0 end)
    assert %{loudness: nil, envelope: nil} = similarity = compare(audio(), silence)
    refute Similarity.same?(similarity)
    assert Similarity.same?(compare(silence, silence))
    assert %{difference: nil} = similarity = compare(silence, audio())
    refute Similarity.same?(similarity)
    empty = %Audio{samples: "", sample_rate: 24_000}
    refute Similarity.same?(compare(audio(), empty))
  end
end
