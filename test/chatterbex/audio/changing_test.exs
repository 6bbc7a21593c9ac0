defmodule Chatterbex.Audio.ChangingTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  defp audio(values, options \\ []) do
    samples = for value <- values, into: "", do: <<value::float-32-little>>
    struct!(%Audio{samples: samples, sample_rate: 24_000, metadata: %{seed: 7}}, options)
  end

  defp samples(audio), do: for(<<value::float-32-little <- audio.samples>>, do: value)

  defp sine(hertz, rate, frames),
    do: for(n <- 0..(frames - 1), do: :math.sin(2 * :math.pi() * hertz * n / rate))

  describe "resample/2" do
    test "keeps a tone, its time and the metadata" do
      {:ok, new} = Audio.resample(audio(sine(440, 24_000, 24_000)), 16_000)
      assert {new.sample_rate, new.channels, new.metadata} == {16_000, 1, %{seed: 7}}
      assert byte_size(new.samples) == 4 * 16_000

      middle = fn list -> Enum.slice(list, 4_000, 8_000) end

      for {is, should} <- Enum.zip(middle.(samples(new)), middle.(sine(440, 16_000, 16_000))) do
        assert_in_delta is, should, 1.0e-5
      end
    end

    test "has as many frames as it says" do
      for frames <- [1, 2, 100, 2_401], {from, to} <- [{24_000, 16_000}, {44_100, 24_000}, {8_000, 48_000}] do
        {:ok, new} =
          Audio.resample(audio(List.duplicate(0.1, 2 * frames), sample_rate: from, channels: 2), to)

        assert byte_size(new.samples) == 8 * ceil(frames * to / from)
      end
    end

    test "refuses what makes no sense" do
      for rate <- [0, 999, 768_001, 16_000.0, "16000", nil] do
        assert {:error, %Error{reason: :invalid_option}} = Audio.resample(audio([0.5]), rate)
      end

      assert {:error, %Error{reason: :invalid_audio}} = Audio.resample(audio([0.5], sample_rate: 10), 8_000)
      not_a_number = %Audio{samples: <<0::32, 0x7FC00000::32-little>>, sample_rate: 24_000}
      assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.resample(not_a_number, 8_000)
      assert message =~ "frame 1 are not finite numbers"

      many = audio(List.duplicate(0.5, 65), channels: 65)
      assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.resample(many, 8_000)
      assert message =~ "65 channels, and at most 64"
    end
  end

  describe "mono/1" do
    test "averages" do
      {:ok, mono} = Audio.mono(audio([0.5, -0.5, 1.0, 0.5], channels: 2))
      assert {samples(mono), mono.channels, mono.metadata} == {[0.0, 0.75], 1, %{seed: 7}}
      assert Audio.mono(mono) == {:ok, mono}
    end
  end

  test "what is no audio is refused before anything native sees it" do
    for broken <- [
          %Audio{samples: "abc", sample_rate: 24_000},
          %Audio{samples: <<0::64>>, sample_rate: 0},
          %Audio{samples: <<0::64>>, sample_rate: 1.0e300},
          %Audio{samples: <<0::64>>, sample_rate: 0x100000000},
          %Audio{samples: <<0::64>>, sample_rate: 24_000, channels: 0x10000},
          %Audio{samples: <<0::64>>, sample_rate: 24_000, channels: 3},
          %Audio{samples: nil, sample_rate: 24_000}
        ],
        change <- [&Audio.mono/1, &Audio.resample(&1, 8_000)] do
      assert {:error, %Error{reason: :invalid_audio}} = change.(broken)
    end
  end
end
