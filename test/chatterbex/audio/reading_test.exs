defmodule Chatterbex.Audio.ReadingTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  @moduletag :tmp_dir
  @fixtures "test/fixtures/audio"

  defp refused(path, options \\ []) do
    assert {:error, %Error{reason: :invalid_audio} = error} = Audio.read(path, options)
    assert error.message =~ path
    assert error.details.path == path
    error
  end

  test "every format gives the same speech" do
    {:ok, flac} = Audio.read("#{@fixtures}/speech.flac")
    assert {flac.sample_rate, flac.channels, Audio.duration(flac)} == {24_000, 1, 0.4}
    assert Audio.read("#{@fixtures}/speech.oga") == {:ok, flac}

    for name <- ["speech.mp3", "speech.ogg", "speech.opus"] do
      {:ok, audio} = Audio.read("#{@fixtures}/#{name}")
      assert {name, audio.sample_rate, audio.channels, Audio.duration(audio)} == {name, 24_000, 1, 0.4}
    end
  end

  test "the content decides the format, not the name", %{tmp_dir: dir} do
    path = Path.join(dir, "speech.wav")
    File.cp!("#{@fixtures}/speech.mp3", path)
    assert Audio.read(path) == Audio.read("#{@fixtures}/speech.mp3")
  end

  test "truncated, damaged and unknown files give clear errors", %{tmp_dir: dir} do
    flac = File.read!("#{@fixtures}/speech.flac")
    path = Path.join(dir, "speech.flac")

    File.write!(path, binary_part(flac, 0, 5_000))
    error = refused(path)
    assert error.message =~ "truncated: it should be 0.40 s long"
    assert error.details.cause == :truncated

    <<head::binary-size(3_000), byte, rest::binary>> = flac
    File.write!(path, [head, Bitwise.bxor(byte, 1), rest])
    assert refused(path).details.cause == :damaged

    File.write!(path, "")
    assert refused(path).message =~ "these 0 bytes are not an audio file"

    File.write!(path, [<<0, 0, 0, 32>>, "ftypM4A ", :binary.copy(<<0>>, 100)])
    assert refused(path).message =~ "this is an MP4 or M4A file, which cannot be read"
  end

  test "limits on bytes and seconds" do
    path = "#{@fixtures}/speech.flac"
    assert {:error, %Error{reason: :invalid_audio} = error} = Audio.read(path, max_bytes: 1_000)

    assert error.message ==
             "#{path} is larger than 1000 bytes. Cut it, or allow more with the option :max_bytes."

    assert {:error, %Error{reason: :invalid_audio}} = Audio.from_format(File.read!(path), max_bytes: 1_000)
    assert {:ok, _audio} = Audio.read(path, max_bytes: File.stat!(path).size)

    {:ok, long} = Audio.to_wav(%Audio{samples: :binary.copy(<<0>>, 4 * 16_001), sample_rate: 8_000})
    assert {:ok, _audio} = Audio.from_format(long, max_seconds: 3)

    assert {:error, %Error{reason: :invalid_audio, message: message}} =
             Audio.from_format(long, max_seconds: 2)

    assert message =~ "longer than 2 s"

    for options <- [[max_bytes: 0], [max_seconds: 1.5], [max: 7], :all] do
      assert {:error, %Error{reason: :invalid_option}} = Audio.read(path, options)
      assert {:error, %Error{reason: :invalid_option}} = Audio.from_format("", options)
    end
  end

  test "limits on samples are separate from limits on seconds" do
    {:ok, audio} = Audio.silence(1_000, sample_rate: 8_000, channels: 2)
    {:ok, wav} = Audio.to_wav(audio)

    for read <- [&Audio.from_wav/2, &Audio.from_format/2] do
      assert read.(wav, max_samples: 16_000) == {:ok, audio}
      assert {:error, %Error{reason: :invalid_audio} = error} = read.(wav, max_samples: 15_999)

      assert error.message ==
               "the audio has more than 15999 samples; cut it, or allow more with the option :max_samples"
    end

    {:ok, longer} = Audio.silence(1_001, sample_rate: 8_000)
    {:ok, longer} = Audio.to_wav(longer)
    assert {:error, %Error{details: %{cause: :too_long}}} = Audio.from_wav(longer, max_seconds: 1)

    assert {:error, %Error{reason: :invalid_option}} = Audio.from_wav(wav, max_samples: 0)
    assert {:error, %Error{reason: :invalid_audio}} = Audio.from_wav(wav, max_bytes: 100)
  end

  test "a WAV file from a pipe is read to its end" do
    {:ok, audio} = Audio.read("#{@fixtures}/speech.flac")

    {:ok, <<"RIFF", _length::32, head::binary-size(32), _data_length::32, data::binary>>} =
      Audio.to_wav(audio)

    piped = <<"RIFF", 0xFFFFFFFF::32, head::binary, 0xFFFFFFFF::32, data::binary>>

    assert Audio.from_wav(piped) == {:ok, audio}
    assert Audio.from_format(piped) == {:ok, audio}
    assert Audio.from_wav(binary_part(piped, 0, byte_size(piped) - 1), max_seconds: 1) |> elem(0) == :ok
  end

  test "small files that ask for gigabytes are refused" do
    # 9 codebooks of Vorbis, 1,024 frames of FLAC and 20,000 packets of Opus.
    for name <- ["vorbis_tables.ogg", "silence.flac", "nothing.opus"] do
      path = "native/fuzz/regressions/decode/#{name}"
      assert File.stat!(path).size < 65_536
      assert {:error, %Error{reason: :invalid_audio}} = Audio.read(path)
    end
  end

  test "an endless file is read to the limit, and a folder not at all", %{tmp_dir: dir} do
    assert refused_size("/dev/zero") =~ "larger than 5000000 bytes"
    assert {:error, %Error{reason: :file_error, message: message}} = Audio.read(dir)
    assert message =~ "(eisdir). Give the name of a file"
  end

  defp refused_size(path) do
    assert {:error, %Error{message: message}} = Audio.read(path, max_bytes: 5_000_000)
    message
  end
end
