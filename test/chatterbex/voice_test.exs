defmodule Chatterbex.VoiceTest do
  use ExUnit.Case, async: true

  import Chatterbex.VoiceHelp
  import ExUnit.CaptureLog

  alias Chatterbex.{Audio, Error, Model, Voice}
  alias Chatterbex.Voice.{FileCache, Quality, Safetensors}

  doctest Chatterbex.Voice

  @moduletag :tmp_dir

  # What a server with this model and folder reports about itself.
  defp about(model, folder \\ nil) do
    {:ok, model} = Model.fetch(model)
    %{model: model, voices: folder, node: node()}
  end

  defp write!(dir, name, bytes) do
    path = Path.join(dir, name)
    File.write!(path, bytes)
    path
  end

  defp recording!(dir, name, audio) do
    path = Path.join(dir, name)
    :ok = Audio.write(audio, path, encoding: :f32)
    path
  end

  defp refused(result) do
    assert {:error, %Error{message: message, reason: reason}} = result
    assert String.length(message) < 500
    {reason, message}
  end

  describe "a saved voice" do
    test "comes back as it was", %{tmp_dir: dir} do
      path =
        write!(
          dir,
          "ann.voice",
          voice(%{"name" => "Ann", "note" => "agreed", "seconds" => "6.5", "loudness" => "-20.1"})
        )

      assert {:ok, voice} = Voice.load(path)
      assert %Voice{family: "turbo", name: "Ann"} = voice
      assert %{note: "agreed", seconds: 6.5, loudness: -20.1, model: nil} = voice.metadata
      assert ["it is 6.5 s long" <> _hint] = voice.metadata.warnings

      again = Path.join(dir, "again.voice")
      assert :ok = Voice.save(voice, again)
      assert File.read!(again) == File.read!(path)
      assert Voice.load(again) == {:ok, voice}
    end

    test "is shown by what it is", %{tmp_dir: dir} do
      {:ok, voice} = Voice.load(write!(dir, "ann.voice", voice(%{"name" => "Ann", "seconds" => "6.5"})))
      assert inspect(voice) == ~s(#Chatterbex.Voice<"Ann", turbo, 6.5 s>)
      {:ok, voice} = Voice.load(write!(dir, "x.voice", voice()))
      assert inspect(voice) == "#Chatterbex.Voice<turbo>"
    end

    test "is refused if a single byte differs", %{tmp_dir: dir} do
      bytes = voice(%{"name" => "Ann"})
      path = Path.join(dir, "ann.voice")

      places = Enum.uniq(Enum.to_list(0..1500) ++ Enum.take_every(1500..(byte_size(bytes) - 1), 501))

      for at <- places do
        <<before::binary-size(at), byte, behind::binary>> = bytes
        File.write!(path, [before, Bitwise.bxor(byte, 1), behind])
        assert {:error, %Error{reason: :voice_unreadable}} = Voice.load(path)
      end
    end

    test "is refused if it is cut short", %{tmp_dir: dir} do
      bytes = voice()

      for length <- [0, 1, 7, 8, 9, 100, 1500, 5000, byte_size(bytes) - 1] do
        {reason, message} = refused(Voice.load(write!(dir, "ann.voice", binary_part(bytes, 0, length))))
        assert reason == :voice_unreadable
        assert message =~ ~r/ann.voice cannot be read: it is (empty|cut short|not a safetensors file)/
      end
    end

    test "is refused if it is another kind of file, or contradicts itself", %{tmp_dir: dir} do
      tensor = fn fields -> Map.merge(%{dtype: "F32", shape: [2], data_offsets: [0, 8]}, Map.new(fields)) end
      marks = %{"chatterbex_voice" => "1", "family" => "turbo"}
      with_header = fn header -> file(Map.put(header, "__metadata__", marks), <<0::64>>) end

      for {bytes, said} <- [
            {"PK\x03\x04" <> :binary.copy(<<0>>, 100), "is a pickle, which could run any code"},
            {<<0x80, 2, 0x7D, 0x71, 0, 0x2E>>, "is a pickle"},
            {"RIFF\0\0\0\0WAVE", "is a recording"},
            {"OggS" <> :binary.copy(<<0>>, 100), "is a recording"},
            {:binary.copy(<<0>>, 100), "is not a safetensors file"},
            {for(n <- 1..2000, into: "", do: <<rem(7 * n * n + n, 251)>>), "is not a safetensors file"},
            {:binary.copy("x", 2 * 1024 * 1024), "has 2097152 bytes; a saved voice has at most 1048576"},
            {<<0x7FFFFFFFFFFFFFFF::64-little, "{}">>, "has a header of 9223372036854775807 bytes"},
            {<<65_537::64-little, "{", 0::size(65_536)-unit(8)>>, "has a header of 65537 bytes"},
            {file("{", ""), "has a header that cannot be read (unexpected end)"},
            {file("{\"a\": \xFF}", ""), "has a header that cannot be read"},
            {file(~s({"a":) <> String.duplicate("[", 5000), ""),
             "has a header that cannot be read (nested too deep)"},
            {file(%{"__metadata__" => %{"a" => 1}}, ""), "has marks that are not strings"},
            {file(%{"__metadata__" => []}, ""), "has marks that are not strings"},
            {with_header.(%{"a" => 7}), "a tensor \"a\" whose place and shape make no sense"},
            {with_header.(%{"a" => tensor.(dtype: "F31")}), "make no sense"},
            {with_header.(%{"a" => tensor.(shape: [3])}), "make no sense"},
            {with_header.(%{"a" => tensor.(shape: [-1, -2])}), "make no sense"},
            {with_header.(%{"a" => tensor.(shape: [1.0, 2])}), "make no sense"},
            {with_header.(%{"a" => tensor.(shape: List.duplicate(9_999_999_999, 2000))}), "make no sense"},
            {with_header.(%{"a" => tensor.(data_offsets: [8, 0])}), "make no sense"},
            {with_header.(%{"a" => tensor.(data_offsets: [-8, 0])}), "overlap or leave gaps"},
            {with_header.(%{"a" => tensor.(data_offsets: [8, 16])}), "overlap or leave gaps"},
            {with_header.(%{"a" => tensor.(shape: [4], data_offsets: [0, 16])}), "is cut short"},
            {with_header.(%{"a" => tensor.([]), "b" => tensor.([])}), "overlap or leave gaps"},
            {with_header.(%{"a" => tensor.(shape: [1], data_offsets: [0, 4])}),
             "has more in it than its header says"},
            {with_header.(Map.new(1..65, &{"#{&1}", tensor.(shape: [0], data_offsets: [0, 0])})),
             "has 65 tensors"},
            {file(%{"a" => tensor.([])}, <<0::64>>), "is a safetensors file, but not a voice"},
            {file(%{"a" => tensor.([]), "__metadata__" => %{marks | "chatterbex_voice" => "2"}}, <<0::64>>),
             "was made by another version of Chatterbex (its format is \"2\", not 1)"},
            # Complete, but not sealed.
            {with_header.(%{"a" => tensor.([])}), "is damaged"}
          ] do
        {reason, message} = refused(Voice.load(write!(dir, "ann.voice", bytes)))
        assert reason == :voice_unreadable
        assert message =~ "ann.voice cannot be read: it "
        assert message =~ said
      end
    end

    test "creates no atoms", %{tmp_dir: dir} do
      names = for n <- 1..500, do: {"mark #{n} #{System.unique_integer()}", "value"}
      path = write!(dir, "ann.voice", voice(Map.new(names)))
      {:ok, _warm} = Voice.load(path)
      before = :erlang.system_info(:atom_count)
      assert {:ok, _voice} = Voice.load(path)
      for {name, _value} <- names, do: assert_raise(ArgumentError, fn -> String.to_existing_atom(name) end)
      # Other tests run meanwhile.
      assert :erlang.system_info(:atom_count) - before < 400
    end

    test "that is not a file", %{tmp_dir: dir} do
      assert {:voice_unreadable, message} = refused(Voice.load(dir))
      assert message =~ "it is not a file but a directory"
      assert {:file_error, _message} = refused(Voice.load("a\0b"))
      assert {:file_error, _message} = refused(Voice.load(nil))
    end

    test "is for the models of its family", %{tmp_dir: dir} do
      path = write!(dir, "ann.voice", voice(%{"name" => "Ann"}))
      {:ok, voice} = Voice.load(path)
      bytes = voice.data

      for source <- [voice, {:file, path}], model <- [:turbo, :nano] do
        assert Voice.resolve(source, about(model)) == {:ok, %{"saved" => {:bytes, bytes}}}
      end

      for source <- [voice, {:file, path}], model <- [:english, :multilingual, :conversion] do
        assert {:not_supported, message} = refused(Voice.resolve(source, about(model)))

        assert message =~
                 ~s(the voice "Ann" was made for the models of the family turbo, and #{inspect(model)} is of)
      end

      # The family is that of the data, whatever the struct says.
      assert {:not_supported, _} = refused(Voice.resolve(%{voice | family: "original"}, about(:english)))
      assert {:voice_unreadable, _} = refused(Voice.resolve(%{voice | data: "x"}, about(:nano)))
      assert {:not_supported, message} = refused(Voice.resolve(voice, about(:hibari)))
      assert message =~ ~s(Its voices: "heart".)
    end
  end

  describe "a recording" do
    test "is one channel, the average of all", %{tmp_dir: dir} do
      frames = 6 * 8_000

      stereo = %Audio{
        samples: :binary.copy(<<0.5::float-32-little, 0.25::float-32-little>>, frames),
        sample_rate: 8_000,
        channels: 2
      }

      for source <- [stereo, {:file, recording!(dir, "stereo.wav", stereo)}] do
        assert {:ok, %{"samples" => {:bytes, samples}, "sample_rate" => 8_000}} =
                 Voice.resolve(source, about(:nano))

        assert samples == :binary.copy(<<0.375::float-32-little>>, frames)
      end
    end

    test "is refused before a model sees it", %{tmp_dir: dir} do
      loud = tone(1)
      nan = %{loud | samples: loud.samples <> :binary.copy(<<0, 0, 192, 127>>, 6 * 24_000)}

      for {audio, model, reason, said} <- [
            {tone(5), :turbo, :voice_too_short, "is 5.0 s long; more than 5.0 s are needed"},
            {tone(1), :english, :voice_too_short, "is 1.0 s long; more than 1.0 s are needed"},
            {tone(0), :english, :voice_too_short, "is 0.0 s long"},
            {tone(301, sample_rate: 4_000), :english, :voice_unreadable,
             "is 301.0 s long; at most 300 s are allowed"},
            {tone(6, level: 0.00005), :turbo, :voice_unreadable, "is silent"},
            {tone(6, level: 0.0), :turbo, :voice_unreadable, "is silent"},
            {nan, :turbo, :voice_unreadable, "finite"},
            {tone(6, sample_rate: 3_000), :turbo, :voice_unreadable, "3000 samples a second"},
            {%{loud | samples: <<0>>}, :turbo, :voice_unreadable, "not audio"},
            {%{loud | channels: 0}, :turbo, :voice_unreadable, "not audio"}
          ] do
        assert {^reason, message} = refused(Voice.resolve(audio, about(model)))
        assert message =~ said
      end

      recording!(dir, "long.wav", tone(601, sample_rate: 4_000))

      for {file, said} <- [
            {"long.wav", "long.wav cannot be read: it is longer than 300 s"},
            {"none.wav", "none.wav cannot be read: no such file or directory (enoent)"},
            {".", "it is not a file but a directory"},
            {Path.basename(write!(dir, "text.wav", "no sound")), "text.wav cannot be read: "}
          ] do
        assert {:voice_unreadable, message} =
                 refused(Voice.resolve({:file, Path.join(dir, file)}, about(:nano)))

        assert message =~ said
      end
    end

    test "that is just long enough is accepted" do
      assert {:ok, _} = Voice.resolve(tone(5.001), about(:turbo))
      assert {:ok, _} = Voice.resolve(tone(1.001), about(:conversion))
      assert {:ok, _} = Voice.resolve(tone(300, sample_rate: 4_000), about(:english))
    end

    test "that is too large is not read", %{tmp_dir: dir} do
      path = Path.join(dir, "large.wav")
      {:ok, file} = :file.open(path, [:write])
      {:ok, _} = :file.position(file, 65 * 1024 * 1024)
      :ok = :file.truncate(file)
      :ok = :file.close(file)
      assert {:voice_unreadable, message} = refused(Voice.resolve({:file, path}, about(:nano)))
      assert message =~ "it has 68 MB; at most 64 MB are read"
    end

    test "that is clipped is accepted with a warning", %{tmp_dir: dir} do
      clipped = %{
        tone(6)
        | samples: :binary.copy(<<1.0::float-32-little, -0.5::float-32-little>>, 3 * 24_000)
      }

      path = recording!(dir, "clipped.wav", clipped)

      assert capture_log(fn -> assert {:ok, _} = Voice.resolve({:file, path}, about(:nano)) end) =~
               "50.0 % of #{path} is clipped"

      refute capture_log(fn -> assert {:ok, _} = Voice.resolve(tone(6), about(:nano)) end) =~ "clipped"
    end

    test "is read again when its file has changed", %{tmp_dir: dir} do
      path = recording!(dir, "ann.wav", tone(6))
      assert {:ok, %{"samples" => {:bytes, first}}} = Voice.resolve({:file, path}, about(:nano))
      recording!(dir, "ann.wav", tone(6, level: 0.25))
      assert {:ok, %{"samples" => {:bytes, second}}} = Voice.resolve({:file, path}, about(:nano))
      assert first != second
      assert byte_size(first) == byte_size(second)
    end
  end

  describe "the cache" do
    setup context do
      cache = :"cache_#{System.unique_integer([:positive])}"
      start_supervised!({FileCache, name: cache, max_bytes: 1000})
      %{cache: cache, make: &settled(context.tmp_dir, &1, &2)}
    end

    # A file that was written a long time ago.
    defp settled(dir, name, bytes) do
      path = write!(dir, name, bytes)
      File.touch!(path, {{2020, 1, 1}, {0, 0, 0}})
      {path, File.stat!(path, time: :posix)}
    end

    defp fetch(cache, {path, stat}, value, bytes) do
      test = self()

      FileCache.fetch(cache, path, stat, fn ->
        send(test, {:read, path})
        {:ok, value, bytes}
      end)
    end

    test "reads a file once, until it changes", %{cache: cache, make: file, tmp_dir: dir} do
      old = file.("a", "a")
      assert fetch(cache, old, :old, 10) == {:ok, :old}
      assert_received {:read, _}
      assert FileCache.size(cache) == %{bytes: 10, files: 1}
      assert fetch(cache, old, :new, 20) == {:ok, :old}
      refute_received {:read, _}

      # The same size and age, but another file.
      File.rename!(elem(file.("b", "b"), 0), elem(old, 0))
      new = {elem(old, 0), File.stat!(Path.join(dir, "a"), time: :posix)}
      assert fetch(cache, new, :new, 20) == {:ok, :new}
      assert FileCache.size(cache) == %{bytes: 20, files: 1}
    end

    test "drops the least recently used", %{cache: cache, make: file} do
      [a, b, c] = for name <- ~w(a b c), do: file.(name, name)
      for one <- [a, b], do: fetch(cache, one, one, 400)
      assert %{bytes: 800} = FileCache.size(cache)
      fetch(cache, a, a, 400)
      fetch(cache, c, c, 400)
      assert %{bytes: 800, files: 2} = FileCache.size(cache)
      for _ <- 1..3, do: assert_received({:read, _})

      for one <- [a, c], do: fetch(cache, one, one, 400)
      refute_received {:read, _}
      fetch(cache, b, b, 400)
      assert_received {:read, _}
    end

    test "does not keep errors, files larger than itself, or files just written", %{
      cache: cache,
      make: file,
      tmp_dir: dir
    } do
      assert fetch(cache, file.("a", "a"), :large, 1001) == {:ok, :large}
      {path, stat} = file.("b", "b")
      assert FileCache.fetch(cache, path, stat, fn -> {:error, :no} end) == {:error, :no}
      path = write!(dir, "c", "c")
      assert fetch(cache, {path, File.stat!(path, time: :posix)}, :fresh, 10) == {:ok, :fresh}
      assert FileCache.size(cache) == %{bytes: 0, files: 0}
    end

    test "is optional", %{make: file} do
      assert fetch(:no_cache, file.("a", "a"), :value, 10) == {:ok, :value}
    end
  end

  describe "a folder of voices" do
    setup %{tmp_dir: dir} do
      folder = Path.join(dir, "voices")
      File.mkdir!(folder)
      write!(folder, "ann.voice", voice(%{"name" => "Ann"}))
      recording!(folder, "ann.wav", tone(6))
      recording!(folder, "Bob Bee.WAV", tone(7))
      write!(folder, "notes.txt", "no voice")
      write!(folder, ".hidden.wav", "no voice")
      recording!(dir, "outside.wav", tone(8))
      %{folder: folder}
    end

    test "lists its voices", %{folder: folder} do
      assert {:ok, [bob, ann]} = Voice.list(folder: folder)
      assert ann == %{name: "ann", kind: :saved, path: Path.join(folder, "ann.voice"), family: "turbo"}
      assert %{name: "Bob Bee", kind: :recording, family: nil} = bob
      assert {:file_error, message} = refused(Voice.list(folder: Path.join(folder, "none")))
      assert message =~ "voices/none cannot be read: no such file or directory"
    end

    test "returns a voice by its name", %{folder: folder} do
      assert {:ok, %{"saved" => _}} = Voice.resolve("ann", about(:nano, folder))
      # The saved one is of another family.
      assert {:ok, %{"samples" => {:bytes, samples}}} = Voice.resolve("ann", about(:english, folder))
      assert byte_size(samples) == 4 * 6 * 24_000
      assert {:ok, %{"samples" => {:bytes, samples}}} = Voice.resolve("Bob Bee", about(:nano, folder))
      assert byte_size(samples) == 4 * 7 * 24_000

      File.rm!(Path.join(folder, "ann.wav"))
      assert {:not_supported, message} = refused(Voice.resolve("ann", about(:english, folder)))
      assert message =~ "was made for the models of the family turbo"
    end

    test "is read on each lookup", %{folder: folder} do
      assert {:invalid_option, _message} = refused(Voice.resolve("eve", about(:nano, folder)))
      recording!(folder, "eve.wav", tone(9))
      assert {:ok, %{"samples" => {:bytes, _}}} = Voice.resolve("eve", about(:nano, folder))
      write!(folder, "eve.voice", voice())
      assert {:ok, %{"saved" => {:bytes, first}}} = Voice.resolve("eve", about(:nano, folder))
      write!(folder, "eve.voice", voice(%{}, 1))
      assert {:ok, %{"saved" => {:bytes, second}}} = Voice.resolve("eve", about(:nano, folder))
      assert first != second
      for ending <- ["wav", "voice"], do: File.rm!(Path.join(folder, "eve.#{ending}"))
      assert {:invalid_option, _message} = refused(Voice.resolve("eve", about(:nano, folder)))
    end

    test "is listed in the error for an unknown name", %{folder: folder} do
      assert {:invalid_option, message} = refused(Voice.resolve("anne", about(:nano, folder)))

      assert message ==
               ~s(there is no voice "anne". Did you mean "ann"? There are "Bob Bee", "ann". ) <>
                 ~s(A string is a name; to use a file, give voice: {:file, "ann.wav"}.)

      assert {:invalid_option, message} = refused(Voice.resolve("anne", about(:nano)))

      assert message =~
               ~s(there is no voice "anne". No folder of voices is configured: config :chatterbex, voices:)

      for name <- ["", ".", "..", "a\0", <<0xFF>>, ".hidden", "notes", String.duplicate("x", 5000)] do
        assert {reason, _message} = refused(Voice.resolve(name, about(:nano, folder)))
        assert reason in [:invalid_option, :voice_unreadable, :file_error]
      end
    end

    test "cannot be escaped by a name", %{folder: folder, tmp_dir: dir} do
      refute Chatterbex.Voice.Folder.name?("../outside")

      outside = Path.join(dir, "outside.wav")

      for name <- ["../outside", "..\\outside", "../voices/ann", "./ann", "ann/../ann", "ann.wav", outside] do
        assert {:invalid_option, message} = refused(Voice.resolve(name, about(:nano, folder)))
        assert message =~ "there is no voice"
        assert message =~ ~s(A string is a name; to use a file, give voice: {:file, "ann.wav"}.)
        assert {:invalid_option, _message} = refused(Voice.resolve(name, about(:nano)))
      end

      # The file belongs to the caller, not to the folder.
      assert {:ok, %{"samples" => _}} =
               Voice.resolve({:file, Path.join(dir, "outside.wav")}, about(:nano, folder))
    end

    test "comes after the model's own voices", %{folder: folder} do
      write!(folder, "heart.voice", voice())
      {:ok, hibari} = Model.fetch(:hibari)
      model = %{hibari | voice_family: "turbo"}
      assert Voice.resolve("heart", %{about(:nano, folder) | model: model}) == {:ok, "heart"}
      assert {:ok, %{"saved" => _}} = Voice.resolve("ann", %{about(:nano, folder) | model: model})
    end

    test "can belong to a server", %{folder: folder} do
      server = Chatterbex.TestHelp.start_fake(voices: folder)
      assert {:ok, []} = Voice.list(server: server)

      assert {:error, %Error{message: message}} = Chatterbex.start_link(voices: 7)
      assert message =~ ~s(option :voices must be the path of a folder, or {:my_app, "priv/voices"})
      assert {:error, %Error{reason: :invalid_option}} = Chatterbex.start_link(voices: {:no_such_app, "x"})
    end
  end

  test "the voices of a server on a lost node cannot be listed" do
    about = %{about(:nano, "voices") | node: :"none@127.0.0.1"}
    assert {:voice_unreadable, message} = refused(Voice.resolve("ann", about))
    assert message =~ "the voices of the node none@127.0.0.1 cannot be read"
  end

  test "warnings say what to improve" do
    good = %{seconds: 12.0, loudness: -22.5, clipped: 0.0, quiet: 0.5, sample_rate: 24_000, peak: 0.5}
    assert Quality.warnings(good) == []
    assert Quality.warnings(%{}) == []

    for {figures, said} <- [
          {%{seconds: 5.25}, "it is 5.3 s long: with 10 to 15 s"},
          {%{seconds: 90}, "it is 90.0 s long, but the model mostly uses the first 10 to 15 s"},
          {%{loudness: -45.0, quiet: 1.0}, "it is quiet (-45.0 LUFS)"},
          {%{clipped: 0.0123}, "1.2 % of it is clipped"},
          {%{quiet: 0.85}, "85.0 % of it is silent"},
          {%{sample_rate: 8_000}, "it has 8000 samples a second, as a telephone has"}
        ] do
      assert [warning] = Quality.warnings(Map.merge(good, figures))
      assert warning =~ said
    end
  end

  describe "cloning" do
    test "is refused before a model sees anything" do
      server = Chatterbex.TestHelp.start_fake()
      assert {:not_supported, message} = refused(Voice.clone(tone(6), server: server))
      assert message =~ "the model :fake only has its own voices"
      assert {:invalid_option, _} = refused(Voice.clone(tone(6), server: server, name: 7))

      assert {:invalid_option, message} =
               refused(Voice.clone(tone(6), server: server, name: String.duplicate("a", 201)))

      assert message =~ "option :name must be a string of at most 200 characters"
      assert {:invalid_option, message} = refused(Voice.clone(tone(6), server: :nobody, norm_loudness: 0))
      assert message == "option :norm_loudness must be true or false, got 0"
      assert {:not_running, message} = refused(Voice.clone(tone(6), server: :nobody))
      assert message =~ "no server runs as :nobody"
    end
  end

  test "a seal is kept when marks are added" do
    sealed = Safetensors.seal(voice(%{"name" => "Ann"}), %{"note" => "agreed"})
    assert {:ok, %{"name" => "Ann", "note" => "agreed"} = marks} = Safetensors.marks(sealed)
    assert Safetensors.sealed(sealed, marks) == :ok
  end
end
