defmodule Chatterbex.Audio.FormatsTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  @moduletag :tmp_dir
  @fixtures "test/fixtures/audio"

  defp speech do
    {:ok, speech} = Audio.read("#{@fixtures}/speech.flac")
    speech
  end

  # Samples that integers of `bits` bits hold exactly, in two channels.
  defp exact(bits) do
    :rand.seed(:exsss, {1, 2, bits})
    scale = Bitwise.bsl(1, bits - 1)

    samples =
      for _sample <- 1..20_000,
          into: "",
          do: <<(:rand.uniform(2 * scale) - scale - 1) / scale::float-32-little>>

    %Audio{samples: samples, sample_rate: 44_100, channels: 2}
  end

  # How similar two sounds of the same length are: 1.0 for the same.
  defp likeness(one, other) do
    pairs = Enum.zip(values(one), values(other))

    {product, a, b} =
      Enum.reduce(pairs, {0.0, 0.0, 0.0}, fn {x, y}, {p, a, b} -> {p + x * y, a + x * x, b + y * y} end)

    product / :math.sqrt(a * b)
  end

  defp values(audio), do: for(<<value::float-32-little <- audio.samples>>, do: value)

  describe "to_format/3" do
    test "FLAC loses nothing, in 16 and 24 bits" do
      for {bits, encoding} <- [{16, :s16}, {24, :s24}] do
        {:ok, flac} = Audio.to_format(exact(bits), :flac, encoding: encoding)
        assert <<"fLaC", _rest::binary>> = flac
        assert Audio.from_format(flac) == {:ok, exact(bits)}
      end

      {:ok, flac} = Audio.to_format(speech(), :flac)
      {:ok, wav} = Audio.to_format(speech(), :wav)
      assert Audio.from_format(flac) == {:ok, speech()}
      assert byte_size(flac) < 0.7 * byte_size(wav)
    end

    test "Opus sounds the same, has the same length, and is much smaller" do
      {:ok, opus} = Audio.to_format(speech(), :opus)
      assert <<"OggS", _rest::binary>> = opus
      {:ok, back} = Audio.from_format(opus)
      assert {back.sample_rate, back.channels, Audio.duration(back)} == {24_000, 1, 0.4}
      assert likeness(speech(), back) > 0.97

      {:ok, coarse} = Audio.to_format(speech(), :opus, bitrate: 12_000)
      assert byte_size(coarse) < 0.5 * byte_size(opus)

      {:ok, stereo} = Audio.to_format(exact(16), :opus)
      assert {:ok, %Audio{channels: 2, sample_rate: 48_000} = back} = Audio.from_format(stereo)
      assert_in_delta Audio.duration(back), Audio.duration(exact(16)), 1.0e-4
    end

    test "MP3 is a twentieth of the size, in sync, and at a supported rate" do
      {:ok, mp3} = Audio.to_format(speech(), :mp3)
      assert {:ok, back} = Audio.from_format(mp3)
      assert {back.sample_rate, Audio.duration(back)} == {24_000, Audio.duration(speech())}
      {:ok, small} = Audio.to_format(speech(), :mp3, bitrate: 24_000)
      assert byte_size(small) < 0.6 * byte_size(mp3)

      {:ok, mp3} = Audio.to_format(%{speech() | sample_rate: 23_999}, :mp3)
      assert {:ok, %Audio{sample_rate: 48_000}} = Audio.from_format(mp3)
    end

    test "WAV is to_wav/2" do
      assert Audio.to_format(speech(), :wav, encoding: :f32) == Audio.to_wav(speech(), encoding: :f32)
    end

    test "refuses unknown formats and options" do
      for format <- [:aac, "flac", nil] do
        assert {:error, %Error{reason: :invalid_option, message: message}} = Audio.to_format(speech(), format)
        assert message =~ "the format of a file must be one of :wav, :flac, :opus, :mp3"
      end

      for {format, options} <- [
            {:flac, [encoding: :f32]},
            {:flac, [bitrate: 64_000]},
            {:opus, [encoding: :s16]},
            {:opus, [bitrate: 5_999]},
            {:mp3, [bitrate: 7_999]},
            {:wav, [format: :wav]},
            {:wav, :s16}
          ] do
        assert {:error, %Error{reason: :invalid_option}} = Audio.to_format(speech(), format, options)
      end
    end

    test "refuses what a format cannot hold" do
      frame = fn channels ->
        %Audio{samples: <<0::size(channels)-unit(32)>>, sample_rate: 24_000, channels: channels}
      end

      for {audio, format, says} <- [
            {frame.(9), :flac, "9 channels, and at most 8"},
            {frame.(3), :opus, "3 channels, and at most 2"},
            {frame.(3), :mp3, "3 channels, and at most 2"},
            {%{frame.(1) | samples: ""}, :mp3, "no samples"},
            {%{frame.(1) | sample_rate: 655_351}, :flac,
             "from 1 to 655350 Hz for audio to be written as FLAC"},
            {%{frame.(1) | sample_rate: 999}, :opus, "from 1000 to 768000 Hz for audio to be resampled"},
            {%{frame.(1) | samples: ""}, :flac, "no samples"},
            {%{frame.(1) | samples: <<0x7FC00000::32-little>>}, :opus, "not finite numbers"}
          ] do
        assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.to_format(audio, format)
        assert message =~ says
      end
    end
  end

  describe "write/3" do
    test "writes the format that the file name says", %{tmp_dir: dir} do
      for {name, begins} <- [
            {"a.wav", "RIFF"},
            {"a.FLAC", "fLaC"},
            {"a.opus", "OggS"},
            {"a.ogg", "OggS"},
            {"a", "RIFF"},
            {"flac", "RIFF"},
            {"a.part", "RIFF"}
          ] do
        path = Path.join(dir, name)
        assert Audio.write(speech(), path) == :ok
        assert binary_part(File.read!(path), 0, 4) == begins
        assert {:ok, %Audio{sample_rate: 24_000}} = Audio.read(path)
      end
    end

    test "writes the format of the option, and passes the format's options on", %{tmp_dir: dir} do
      path = Path.join(dir, "a.wav")
      assert Audio.write(speech(), path, format: :flac, encoding: :s24) == :ok
      assert File.read!(path) == elem(Audio.to_format(speech(), :flac, encoding: :s24), 1)
      assert Audio.write(speech(), path, format: :opus, bitrate: 16_000) == :ok
      assert binary_part(File.read!(path), 0, 4) == "OggS"
    end

    test "refuses extensions that it cannot write, and writes nothing", %{tmp_dir: dir} do
      path = Path.join(dir, "a.m4a")
      assert {:error, %Error{reason: :invalid_option, message: message}} = Audio.write(speech(), path)

      assert message =~
               ".m4a is not a supported extension. Use .wav, .flac, .opus or .mp3"

      for options <- [[format: :aac], [encoding: :s8], [bitrate: 9], :flac] do
        assert {:error, %Error{reason: :invalid_option}} =
                 Audio.write(speech(), Path.join(dir, "a.wav"), options)
      end

      assert File.ls!(dir) == []
    end
  end
end
