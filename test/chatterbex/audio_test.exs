defmodule Chatterbex.AudioTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error, TestHelp}

  doctest Chatterbex.Audio

  @moduletag :tmp_dir

  defp audio(values, options \\ []) do
    struct!(
      %Audio{samples: for(v <- values, into: "", do: <<v::float-32-little>>), sample_rate: 24_000},
      options
    )
  end

  defp samples(audio), do: for(<<v::float-32-little <- audio.samples>>, do: v)

  defp invalid(wav) do
    assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.from_wav(wav)
    message
  end

  describe "WAV" do
    test "round trips in every encoding, within half a step" do
      values = for n <- 0..999, do: :math.sin(n / 10) * 0.99

      for {encoding, tolerance} <- [s16: 0.5 / 32_767, s24: 0.5 / 8_388_607, f32: 0.0] do
        {:ok, wav} = Audio.to_wav(audio(values), encoding: encoding)
        {:ok, back} = Audio.from_wav(wav)

        assert back.sample_rate == 24_000
        assert back.channels == 1
        assert length(samples(back)) == 1000

        for {was, is} <- Enum.zip(samples(audio(values)), samples(back)) do
          assert_in_delta was, is, tolerance + 1.0e-4
        end
      end
    end

    test "two channels stay two channels" do
      {:ok, wav} =
        Audio.to_wav(audio([0.1, -0.1, 0.2, -0.2], channels: 2, sample_rate: 8_000), encoding: :f32)

      assert {:ok, %Audio{channels: 2, sample_rate: 8_000} = back} = Audio.from_wav(wav)
      assert Audio.duration(back) == 2 / 8_000
    end

    test "samples beyond full scale are clipped, and NaN becomes silence" do
      beyond = %Audio{
        samples: <<2.0::float-32-little, -2.0::float-32-little, 0x7FC00000::32-little>>,
        sample_rate: 8_000
      }

      assert {:ok, <<32_767::16-little-signed, -32_768::16-little-signed, 0::16>>} = Audio.to_pcm16(beyond)
    end

    test "a truncated file" do
      {:ok, wav} = Audio.to_wav(audio(List.duplicate(0.5, 1000)))
      for size <- [0, 1, 11, 20, 43], do: assert(invalid(binary_part(wav, 0, size)) != "")
      assert invalid(binary_part(wav, 0, 1000)) =~ "truncated"
    end

    test "a file that lies about its length" do
      {:ok, wav} = Audio.to_wav(audio(List.duplicate(0.5, 100)))
      <<head::binary-size(40), _size::32-little, data::binary>> = wav

      assert invalid(head <> <<0xFFFFFFF0::32-little>> <> data) =~
               "promises 4294967280 bytes of samples, but the file has 200"

      assert invalid(head <> <<300::32-little>> <> data) =~
               "promises 300 bytes of samples, but the file has 200"
    end

    test "a file without samples" do
      {:ok, wav} = Audio.to_wav(audio([]))
      assert invalid(wav) =~ "no samples"
    end

    test "something else" do
      assert invalid("ID3" <> String.duplicate("x", 100)) =~ "not a WAV file"
      assert invalid(:binary.copy(<<0>>, 100)) =~ "not a WAV file"
    end
  end

  describe "files" do
    test "are written whole and read back", %{tmp_dir: dir} do
      path = Path.join(dir, "a.wav")
      assert :ok = Audio.write(audio([0.5, -0.5]), path, encoding: :f32)
      assert {:ok, back} = Audio.read(path)
      assert samples(back) == [0.5, -0.5]
      assert File.ls!(dir) == ["a.wav"]
    end

    test "replace older ones", %{tmp_dir: dir} do
      path = Path.join(dir, "a.wav")
      File.write!(path, "old")
      assert :ok = Audio.write(audio([0.5]), path)
      assert {:ok, _audio} = Audio.read(path)
    end

    test "a missing folder", %{tmp_dir: dir} do
      path = Path.join([dir, "none", "a.wav"])
      assert {:error, %Error{reason: :file_error, message: message}} = Audio.write(audio([0.5]), path)
      assert message == "cannot write #{path}: no such file or directory (enoent). Make its folder first."
    end

    test "a path that is a folder, is below a file, or is not a path", %{tmp_dir: dir} do
      assert {:error, %Error{message: message}} = Audio.write(audio([0.5]), dir)
      assert message =~ "(eisdir). Give the name of a file, not of a folder."

      File.write!(Path.join(dir, "file"), "")
      assert {:error, %Error{message: message}} = Audio.write(audio([0.5]), Path.join(dir, "file/a.wav"))
      assert message =~ "(enotdir)"

      for path <- ["", "a\0b", nil, 7, %{}] do
        assert {:error, %Error{reason: :file_error, message: message}} = Audio.write(audio([0.5]), path)
        assert message =~ "is not a file path"
      end
    end

    test "a full disk: the old file stays, and nothing is left over", %{tmp_dir: dir} do
      assert {:error, %Error{reason: :file_error, message: message}} = Audio.write(audio([0.5]), "/dev/full")

      assert message ==
               "cannot write /dev/full: no space left on device (enospc). Free some space or write elsewhere."

      code = """
      audio = %Chatterbex.Audio{samples: :binary.copy(<<0>>, 4_000_000), sample_rate: 24_000}
      {:error, error} = Chatterbex.Audio.write(audio, "a.wav")
      IO.puts("\#{error.reason}: \#{error.message}")
      """

      File.write!(Path.join(dir, "a.wav"), "old")
      {output, 0} = TestHelp.elixir(code, wrapper: TestHelp.full_disk(), cd: dir)

      assert output =~ "file_error: cannot write a.wav: file too large (efbig)"
      assert File.ls!(dir) == ["a.wav"]
      assert File.read!(Path.join(dir, "a.wav")) == "old"
    end

    test "a file that is missing or not audio", %{tmp_dir: dir} do
      assert {:error, %Error{reason: :file_error}} = Audio.read(Path.join(dir, "none.wav"))
      path = Path.join(dir, "text.wav")
      File.write!(path, "hello")
      assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.read(path)
      assert message =~ path
    end
  end

  test "invalid audio is refused before native code sees it" do
    for broken <- [
          %Audio{samples: "abc", sample_rate: 24_000},
          %Audio{samples: <<0::64>>, sample_rate: 0},
          %Audio{samples: <<0::64>>, sample_rate: 24_000, channels: 3},
          %Audio{samples: nil, sample_rate: 24_000}
        ] do
      assert {:error, %Error{reason: :invalid_audio}} = Audio.to_wav(broken)
      assert {:error, %Error{reason: :invalid_audio}} = Audio.to_pcm16(broken)
      assert inspect(broken) =~ "#Chatterbex.Audio<"
    end
  end

  test "inspecting prints seconds and rate, not bytes" do
    assert inspect(%Audio{samples: <<0::48_000*32>>, sample_rate: 24_000}) ==
             "#Chatterbex.Audio<2.00 s, 24000 Hz, mono>"

    assert inspect(%Audio{samples: <<0::48_000*32>>, sample_rate: 24_000, channels: 2}) ==
             "#Chatterbex.Audio<1.00 s, 24000 Hz, stereo>"
  end
end
