defmodule Chatterbex.Audio.JoiningTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  defp audio(values, options \\ []) do
    samples = for value <- values, into: "", do: <<value::float-32-little>>
    struct!(%Audio{samples: samples, sample_rate: 24_000}, options)
  end

  defp refused(list) do
    assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.concat(list)
    message
  end

  describe "concat/1" do
    test "joins parts without changing them" do
      # Samples that are only copied need not be finite.
      odd = %Audio{samples: <<0x7FC00000::32-little>>, sample_rate: 24_000}
      {:ok, joined} = Audio.concat([audio([0.5, -0.5]), audio([]), odd, audio([2.0])])
      assert joined.samples == audio([0.5, -0.5]).samples <> odd.samples <> audio([2.0]).samples
      assert {joined.sample_rate, joined.channels} == {24_000, 1}

      one = audio([0.1, 0.2, 0.3, 0.4], channels: 2, sample_rate: 8_000, metadata: %{model: :hibari})
      assert Audio.concat([one]) == {:ok, one}
      assert {:ok, %Audio{channels: 2, sample_rate: 8_000}} = Audio.concat([one, one])
    end

    test "keeps the metadata that all parts share, if it holds for the whole" do
      spoken = %{model: :nano, voice: "ann", seed: 1, tokens: 40, generation_ms: 3.0, finish_reason: "stop"}
      {:ok, pause} = Audio.silence(10)
      first = audio([0.5], metadata: spoken)
      second = audio([0.5], metadata: %{spoken | seed: 2})

      {:ok, joined} = Audio.concat([pause, first, pause, second])
      assert joined.metadata == %{model: :nano, voice: "ann"}

      {:ok, joined} = Audio.concat([first, audio([0.5], metadata: %{model: :nano})])
      assert joined.metadata == %{model: :nano}

      {:ok, joined} = Audio.concat([pause, pause])
      assert joined.metadata == %{}
    end

    test "refuses parts that do not fit, and says what to do" do
      first = audio([0.5, 0.5])

      for {other, form} <- [
            {audio([0.5], sample_rate: 16_000), "number 3 has 16000 Hz and 1 channel"},
            {audio([0.5, 0.5], channels: 2), "number 3 has 24000 Hz and 2 channels"}
          ] do
        message = refused([first, first, other])
        assert message =~ "the first has 24000 Hz and 1 channel, #{form}"
        assert message =~ "Chatterbex.Audio.resample/2"
      end

      assert refused([]) =~ "the list is empty"

      for list <- [nil, first, [1], [first, "x"], [first | first]],
          do: assert(refused(list) =~ "must be a list")

      assert refused([first, %{first | samples: "abc"}]) =~ "this is not audio"
      assert refused([%{first | samples: "abc"}, first]) =~ "this is not audio"
    end

    test "a great many parts" do
      part = audio([0.5])
      {:ok, joined} = Audio.concat(List.duplicate(part, 200_000))
      assert joined.samples == :binary.copy(part.samples, 200_000)
    end
  end

  describe "silence/2" do
    test "has the requested length" do
      for {ms, options, samples} <- [
            {0, [], 0},
            {1, [], 24},
            {1_500, [], 36_000},
            {100, [sample_rate: 44_100, channels: 2], 8_820},
            {1, [sample_rate: 1_500], 1}
          ] do
        {:ok, silence} = Audio.silence(ms, options)
        assert silence.samples == :binary.copy(<<0::32>>, samples)
        assert silence.metadata == %{}
      end
    end

    test "refuses nonsense, and lengths that are too long" do
      for ms <- [-1, 1.5, 3_600_001, nil, "1"] do
        assert {:error, %Error{reason: :invalid_option, message: message}} = Audio.silence(ms)
        assert message =~ "the length of silence, in milliseconds, must be a whole number from 0 to 3600000"
      end

      for options <- [[sample_rate: 0], [channels: 65], [rate: 8_000], :all] do
        assert {:error, %Error{reason: :invalid_option}} = Audio.silence(10, options)
      end

      huge = [sample_rate: 768_000, channels: 64]
      assert {:error, %Error{reason: :invalid_option, message: message}} = Audio.silence(3_600_000, huge)
      assert message =~ "would have 176947200000 samples; the most is 536870912"
    end
  end
end
