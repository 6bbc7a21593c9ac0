defmodule Chatterbex.Audio.LoudnessTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  @fixtures "test/fixtures/audio"

  # A sine with the given level in dBFS, the same in all channels.
  defp tone(decibels, options \\ []) do
    options = Keyword.merge([rate: 24_000, hertz: 997, seconds: 3, channels: 1], options)
    peak = :math.pow(10, decibels / 20)

    samples =
      for n <- 0..round(options[:rate] * options[:seconds] - 1), into: "" do
        value = peak * :math.sin(2 * :math.pi() * options[:hertz] * n / options[:rate])
        :binary.copy(<<value::float-32-little>>, options[:channels])
      end

    %Audio{samples: samples, sample_rate: options[:rate], channels: options[:channels], metadata: %{seed: 7}}
  end

  defp loudness(audio) do
    {:ok, loudness} = Audio.loudness(audio)
    loudness
  end

  defp peak(audio), do: audio.samples |> values() |> Enum.map(&abs/1) |> Enum.max()
  defp values(samples), do: for(<<value::float-32-little <- samples>>, do: value)

  describe "loudness/1" do
    test "of a tone in both channels is its level (EBU Tech 3341)" do
      assert_in_delta loudness(tone(-20, channels: 2)), -20, 0.1
      assert_in_delta loudness(tone(-23, channels: 2, rate: 48_000)), -23, 0.1
      assert_in_delta loudness(tone(-33, channels: 2, rate: 48_000)), -33, 0.1
      assert_in_delta loudness(tone(-20)), -23, 0.1
    end

    test "of loud and quiet parts is the loudness of the loud ones" do
      {:ok, quiet} = Audio.silence(20_000)
      {:ok, both} = Audio.concat([quiet, tone(-20), tone(-60), quiet])
      assert_in_delta loudness(both), -23, 0.5
    end

    test "of short audio is measured over its own length" do
      assert_in_delta loudness(tone(-20, seconds: 0.1)), -23, 0.3
    end

    test "of silence, of audio below the gate, and of empty audio" do
      {:ok, silence} = Audio.silence(1_000)
      {:ok, nothing} = Audio.silence(0)
      for audio <- [silence, nothing, tone(-80)], do: assert(Audio.loudness(audio) == {:ok, :silent})
    end

    test "refuses audio that cannot be measured" do
      assert {:error, %Error{reason: :invalid_audio, message: message}} =
               Audio.loudness(tone(-20, channels: 7))

      assert message =~ "7 channels, and at most 6"

      assert {:error, %Error{reason: :invalid_audio, message: message}} =
               Audio.loudness(tone(-20, rate: 2_000))

      assert message =~ "must be from 4000 to 768000 Hz for audio to have its loudness measured, got 2000"
    end
  end

  describe "normalize/2" do
    test "reaches the requested loudness, and keeps the rest" do
      {:ok, speech} = Audio.read("#{@fixtures}/speech.flac")
      speech = %{speech | metadata: %{seed: 7}}
      {:ok, level} = Audio.normalize(speech)
      assert_in_delta loudness(level), -23, 0.05
      assert %{level | samples: nil} == %{speech | samples: nil}
      assert byte_size(level.samples) == byte_size(speech.samples)

      {:ok, loud} = Audio.normalize(tone(-50), loudness: -16.5)
      assert_in_delta loudness(loud), -16.5, 0.05
      {:ok, quiet} = Audio.normalize(tone(-3), loudness: -40)
      assert_in_delta loudness(quiet), -40, 0.05
    end

    test "stays below the peak, even if that is quieter than requested" do
      {:ok, audio} = Audio.normalize(tone(-50), loudness: 0)
      assert_in_delta 20 * :math.log10(peak(audio)), -1, 0.05
      assert_in_delta loudness(audio), -4, 0.1

      {:ok, audio} = Audio.normalize(tone(-50), loudness: 0, peak: -10)
      assert_in_delta 20 * :math.log10(peak(audio)), -10, 0.05
    end

    test "leaves silence as it is" do
      {:ok, silence} = Audio.silence(1_000)
      assert Audio.normalize(silence) == {:ok, silence}
      assert Audio.normalize(tone(-80)) == {:ok, tone(-80)}
    end

    test "refuses options that make no sense" do
      for options <- [[loudness: 1], [loudness: -71], [peak: 0.1], [peak: "-1"], [lufs: -23], -23] do
        assert {:error, %Error{reason: :invalid_option}} = Audio.normalize(tone(-20, seconds: 0.1), options)
      end
    end
  end
end
