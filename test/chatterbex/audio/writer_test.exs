defmodule Chatterbex.Audio.WriterTest do
  # Not async: it measures the memory of the whole VM.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}
  alias Chatterbex.Audio.Writer

  doctest Writer

  @moduletag :tmp_dir

  # Odd numbers of samples: with 24 bits, they end at odd offsets.
  defp parts(channels \\ 1) do
    for frames <- [3, 0, 1_001, 7] do
      samples = for n <- 1..(frames * channels)//1, into: "", do: <<:math.sin(n)::float-32-little>>
      %Audio{samples: samples, sample_rate: 24_000, channels: channels}
    end
  end

  test "writing in parts gives the same file as writing at once", %{tmp_dir: dir} do
    for encoding <- [:s16, :s24, :f32], channels <- [1, 2] do
      parts = parts(channels)
      whole = %{hd(parts) | samples: Enum.map_join(parts, & &1.samples)}
      path = Path.join(dir, "#{encoding}-#{channels}.wav")
      Enum.into(parts, Writer.new(path, encoding: encoding))
      assert {:ok, File.read!(path)} == Audio.to_wav(whole, encoding: encoding)
    end
  end

  test "the file appears when it is complete, and replaces an older one", %{tmp_dir: dir} do
    path = Path.join(dir, "a.wav")
    File.write!(path, "old")
    assert {:ok, writer} = Writer.open(path)
    assert {:ok, writer} = Writer.write(writer, hd(parts()))
    assert File.read!(path) == "old"
    assert [_old, _part] = File.ls!(dir)
    assert :ok = Writer.close(writer)
    assert {:ok, audio} = Audio.read(path)
    assert Audio.duration(audio) == 3 / 24_000
    assert File.ls!(dir) == ["a.wav"]
    # A closed file stays.
    assert :ok = Writer.abort(writer)
    assert File.ls!(dir) == ["a.wav"]
  end

  test "a failure leaves nothing behind", %{tmp_dir: dir} do
    path = Path.join(dir, "a.wav")

    assert_raise RuntimeError, "the source fails", fn ->
      Stream.concat(parts(), Stream.map([1], fn _one -> raise "the source fails" end))
      |> Enum.into(Writer.new(path))
    end

    assert catch_throw(
             Stream.concat(parts(), Stream.map([1], fn _one -> throw(:enough) end))
             |> Enum.into(Writer.new(path))
           ) == :enough

    other = %Audio{samples: "", sample_rate: 8_000}
    assert_raise Error, ~r/has 24000 Hz/, fn -> Enum.into(parts() ++ [other], Writer.new(path)) end
    assert_raise Error, ~r/there was no audio to write to .*a\.wav/, fn -> Enum.into([], Writer.new(path)) end
    assert File.ls!(dir) == []
  end

  test "every format records its length in the file", %{tmp_dir: dir} do
    {:ok, whole} = Audio.concat(parts())

    for {name, options} <- [
          {"a.flac", [encoding: :s24]},
          {"a.opus", [bitrate: 64_000]},
          {"a.ogg", []},
          {"a.MP3", [bitrate: 96_000]}
        ] do
      path = Path.join(dir, name)
      Enum.into(parts(), Writer.new(path, options))
      assert {:ok, audio} = Audio.read(path)
      assert {audio.sample_rate, Audio.duration(audio)} == {24_000, Audio.duration(whole)}, name
    end

    {:ok, writer} = Writer.open(Path.join(dir, "b.mp3"))
    odd = %Audio{samples: <<0::32>>, sample_rate: 24_001}
    assert {:error, %Error{reason: :invalid_audio, message: message}} = Writer.write(writer, odd)
    assert message =~ "MP3 supports only the sample rates 8000, 11025,"
    assert {:ok, writer} = Writer.write(writer, hd(parts()))
    assert :ok = Writer.close(writer)
  end

  test "audio that does not fit the file is refused, and writing continues", %{tmp_dir: dir} do
    path = Path.join(dir, "a.wav")
    [part | _rest] = parts()
    {:ok, writer} = Writer.open(path)
    assert {:error, %Error{reason: :invalid_audio}} = Writer.write(writer, %{part | samples: <<0>>})
    {:ok, writer} = Writer.write(writer, part)

    for other <- [%{part | channels: 3}, %{part | sample_rate: 8_000}, %{part | sample_rate: nil}],
        do: assert({:error, %Error{reason: :invalid_audio}} = Writer.write(writer, other))

    assert {:error, %Error{reason: :file_error, message: full}} =
             Writer.write(%{writer | size: 0xFFFFFFFF - 44}, part)

    assert full =~ "would be larger than 4 GiB"
    {:ok, writer} = Writer.write(writer, part)
    :ok = Writer.close(writer)
    assert {:ok, audio} = Audio.read(path)
    assert byte_size(audio.samples) == 2 * byte_size(part.samples)
  end

  test "options and paths are checked before anything is written", %{tmp_dir: dir} do
    assert {:error, %Error{reason: :invalid_option, message: message}} = Writer.open("a.wav", encodign: :s16)
    assert message =~ "Did you mean :encoding?"
    assert {:error, %Error{reason: :invalid_option, message: message}} = Writer.open("a.m4a")
    assert message =~ "cannot write a.m4a: .m4a is not a supported extension"
    assert {:error, %Error{reason: :invalid_option}} = Writer.open("a.mp3", encoding: :s16)
    assert {:error, %Error{reason: :file_error}} = Writer.open("")
    assert {:error, %Error{reason: :file_error, message: message}} = Writer.open(dir)
    assert message =~ "Give the name of a file"
    assert {:error, %Error{reason: :file_error, message: message}} = Writer.open("/dev/null")
    assert message =~ "/dev/null: a file that grows must be a regular file"
    assert_raise Error, ~r/cannot write/, fn -> Enum.into([], Writer.new(Path.join(dir, "none/a.wav"))) end
    assert File.ls!(dir) == []
  end

  test "a full disk: the error says so, and nothing is left", %{tmp_dir: dir} do
    code = """
    audio = %Chatterbex.Audio{samples: <<0::24_000*32>>, sample_rate: 24_000}
    try do
      Enum.into(Stream.cycle([audio]), Chatterbex.Audio.Writer.new("a.wav"))
    rescue
      error in Chatterbex.Error -> IO.puts(error.message)
    end
    """

    {output, 0} = elixir(code, wrapper: full_disk(), cd: dir)
    assert output =~ "cannot write a.wav: file too large (efbig)."
    assert File.ls!(dir) == []
  end

  # A tenth of the audio is 38 MB of 32-bit floats, 390 MB.
  @growth 16 * 1024 * 1024

  @tag timeout: 300_000
  test "100,000 characters stream into a file: the right length, and memory stays flat", %{tmp_dir: dir} do
    server = start_fake()
    count = 400
    words = String.duplicate("and so on ", 24)
    text = Enum.map_join(1..count, " ", &"Sentence #{&1} #{words}big:240000.")
    assert String.length(text) > 100_000
    test = self()

    progress = fn told -> if rem(told.pieces, 40) == 0, do: send(test, {:memory, resident_bytes()}) end

    path = Path.join(dir, "book.wav")

    server
    |> Chatterbex.stream(text, sentence_pause: 10, progress: progress)
    |> Enum.into(Writer.new(path))

    sizes = for _tenth <- 1..10, do: assert_received({:memory, bytes}) && bytes
    [first | later] = sizes

    IO.puts(
      "\n  memory after 10 % of the text #{div(first, 1024)} kB, at most later #{div(Enum.max(later), 1024)} kB"
    )

    assert Enum.max(later) - first < @growth

    assert File.stat!(path).size == 44 + 2 * (count * 240_000 + (count - 1) * 240)
  end

  test "a writer that was never opened says so", %{tmp_dir: dir} do
    writer = Writer.new(Path.join(dir, "a.wav"))
    assert {:error, %Error{reason: :file_error, message: message}} = Writer.close(writer)
    assert message =~ " is not open: open one with Chatterbex.Audio.Writer.open/2."
    assert {:error, %Error{reason: :file_error}} = Writer.write(writer, hd(parts()))
    assert {:error, %Error{reason: :file_error}} = Writer.close(Writer.new({:no, "path"}))
    assert :ok = Writer.abort(writer)
    assert File.ls!(dir) == []
  end
end
