defmodule Chatterbex.Audio.ChangingTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  defp audio(values, options \\ []) do
    samples = for value <- values, into: "", do: <<value::float-32-little>>
    struct!(%Audio{samples: samples, sample_rate: 24_000, metadata: %{seed: 7}}, options)
  end

  defp changes do
    [
      &Audio.mono/1,
      &Audio.resample(&1, 8_000),
      &Audio.concat([&1, &1]),
      &Audio.trim/1,
      &Audio.trim(&1, threshold: -120, margin: 60_000),
      &Audio.fade(&1, :both, 3_600_000),
      &Audio.normalize/1
    ]
  end

  defp files do
    [
      &Audio.to_format(&1, :flac, encoding: :s24),
      &Audio.to_format(&1, :opus),
      &Audio.plot(&1, width: 160, height: 160),
      &Audio.plot(&1, width: 160, height: 160, format: :png)
    ]
  end

  defp samples(audio), do: for(<<value::float-32-little <- audio.samples>>, do: value)

  defp sine(hertz, rate, frames),
    do: for(n <- 0..(frames - 1), do: :math.sin(2 * :math.pi() * hertz * n / rate))

  describe "resample/2" do
    test "keeps a tone, its duration and the metadata" do
      {:ok, new} = Audio.resample(audio(sine(440, 24_000, 24_000)), 16_000)
      assert {new.sample_rate, new.channels, new.metadata} == {16_000, 1, %{seed: 7}}
      assert byte_size(new.samples) == 4 * 16_000

      middle = fn list -> Enum.slice(list, 4_000, 8_000) end

      for {is, should} <- Enum.zip(middle.(samples(new)), middle.(sine(440, 16_000, 16_000))) do
        assert_in_delta is, should, 1.0e-5
      end
    end

    test "has the expected number of frames" do
      for frames <- [1, 2, 100, 2_401], {from, to} <- [{24_000, 16_000}, {44_100, 24_000}, {8_000, 48_000}] do
        {:ok, new} =
          Audio.resample(audio(List.duplicate(0.1, 2 * frames), sample_rate: from, channels: 2), to)

        assert byte_size(new.samples) == 8 * ceil(frames * to / from)
      end
    end

    test "refuses nonsense" do
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
    test "averages the channels" do
      {:ok, mono} = Audio.mono(audio([0.5, -0.5, 1.0, 0.5], channels: 2))
      assert {samples(mono), mono.channels, mono.metadata} == {[0.0, 0.75], 1, %{seed: 7}}
      assert Audio.mono(mono) == {:ok, mono}
    end
  end

  describe "trim/2" do
    test "removes silence at both ends, and nothing in between" do
      audio = audio([0.0, 0.002, -0.5, 0.0, 0.004, 0.003, 0.0])
      assert {:ok, trimmed} = Audio.trim(audio, margin: 0)
      assert trimmed == %{audio | samples: binary_part(audio.samples, 8, 12)}
      assert {:ok, %{samples: <<_::binary-size(4)>>}} = Audio.trim(audio, margin: 0, threshold: -20)
      assert {:ok, %{samples: ""}} = Audio.trim(audio, threshold: 0)
      assert Audio.trim(audio, margin: 60_000) == {:ok, audio}
    end

    test "keeps a margin in milliseconds, and whole frames" do
      silence = List.duplicate(0.0, 2_000)
      audio = audio(silence ++ [0.0, 0.5] ++ silence, channels: 2, sample_rate: 1_000)
      assert {:ok, %{channels: 2} = trimmed} = Audio.trim(audio, margin: 10)
      assert byte_size(trimmed.samples) == 8 * 21
      assert {:ok, trimmed} = Audio.trim(audio)
      assert byte_size(trimmed.samples) == 8 * 101
    end

    test "makes silence empty" do
      for values <- [[], [0.0], List.duplicate(0.001, 1_000)] do
        assert {:ok, %{samples: "", metadata: %{seed: 7}}} = Audio.trim(audio(values))
      end
    end
  end

  describe "fade/3" do
    test "in, out and both" do
      ones = audio(List.duplicate(1.0, 20), channels: 2, sample_rate: 1_000)
      {:ok, fade_in} = Audio.fade(ones, :in, 5)
      {:ok, fade_out} = Audio.fade(ones, :out, 5)
      {:ok, both} = Audio.fade(ones, :both, 5)

      assert [zero, zero, a, a, b, b | _] = samples(fade_in)
      assert zero == 0.0
      assert_in_delta a, 0.0955, 1.0e-4
      assert_in_delta b, 0.3455, 1.0e-4
      assert Enum.slice(samples(fade_in), 10, 10) == List.duplicate(1.0, 10)
      assert Enum.reverse(samples(fade_out)) == samples(fade_in)
      assert Enum.take(samples(both), 10) == Enum.take(samples(fade_in), 10)
      assert Enum.drop(samples(both), 10) == Enum.drop(samples(fade_out), 10)
      assert fade_in.metadata == %{seed: 7}
    end

    test "of empty audio, over 0 ms, and over more than its length" do
      assert Audio.fade(audio([]), :both, 10) == {:ok, audio([])}
      assert Audio.fade(audio([0.5, 0.5]), :both, 0) == {:ok, audio([0.5, 0.5])}
      {:ok, faded} = Audio.fade(audio(List.duplicate(1.0, 24)), :out, 3_600_000)
      assert samples(faded) == Enum.sort(samples(faded), :desc)
      assert List.last(samples(faded)) == 0.0
    end

    test "refuses nonsense" do
      for {side, ms} <- [{:left, 10}, {nil, 10}, {:in, -1}, {:in, 1.0}, {:out, 3_600_001}] do
        assert {:error, %Error{reason: :invalid_option}} = Audio.fade(audio([0.5]), side, ms)
      end
    end
  end

  test "any samples, rates and channels give audio or an error" do
    :rand.seed(:exsss, {1, 2, 3})
    pick = fn list -> Enum.random(list) end

    for _round <- 1..200 do
      channels = pick.([1, 2, 3, 6, 7, 64, 65, 0xFFFF])
      frames = pick.([0, 1, 2, 20])
      bytes = 4 * channels * frames

      samples =
        pick.([
          :rand.bytes(bytes),
          :binary.copy(<<0>>, bytes),
          :binary.copy(<<0x7F7FFFFF::32-little>>, channels * frames),
          :binary.copy(<<1::32-little>>, channels * frames),
          :binary.copy(<<0xFF800000::32-little>>, channels * frames)
        ])

      audio = %Audio{
        samples: samples,
        sample_rate: pick.([1, 999, 8_000, 24_000, 0xFFFFFFFF]),
        channels: channels
      }

      for change <- changes() ++ files() do
        case change.(audio) do
          {:ok, %Audio{} = new} -> assert rem(byte_size(new.samples), 4 * new.channels) == 0
          {:ok, file} when is_binary(file) -> :ok
          {:error, %Error{reason: :invalid_audio}} -> :ok
        end
      end
    end
  end

  test "invalid audio is refused before native code sees it" do
    for broken <- [
          %Audio{samples: "abc", sample_rate: 24_000},
          %Audio{samples: <<0::64>>, sample_rate: 0},
          %Audio{samples: <<0::64>>, sample_rate: 1.0e300},
          %Audio{samples: <<0::64>>, sample_rate: 0x100000000},
          %Audio{samples: <<0::64>>, sample_rate: 24_000, channels: 0x10000},
          %Audio{samples: <<0::64>>, sample_rate: 24_000, channels: 3},
          %Audio{samples: nil, sample_rate: 24_000}
        ],
        change <- [(&Audio.loudness/1) | changes() ++ files()] do
      assert {:error, %Error{reason: :invalid_audio}} = change.(broken)
    end
  end
end
