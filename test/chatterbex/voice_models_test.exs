defmodule Chatterbex.VoiceModelsTest do
  # Not async: real models with synthetic weights need both cores and a few gigabytes.
  use ExUnit.Case, async: false

  import Chatterbex.{TestHelp, VoiceHelp}

  alias Chatterbex.{Audio, Runtime, Voice}
  alias Chatterbex.Speech.{Conversion, Plan}

  @moduletag skip: no_chatterbox()
  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  # A little more than 5 seconds of speech in the built-in voice.
  defp recording do
    {:ok, hibari} = Chatterbex.start_link(model: :hibari)
    text = "Pack my box with five dozen liquor jugs, and then go home before it rains again."
    {:ok, audio} = Chatterbex.generate(hibari, text, seed: 1)
    Chatterbex.stop(server: hibari)
    assert Audio.duration(audio) > 5.1
    %{audio | samples: binary_part(audio.samples, 0, round(5.1 * 24_000) * 4), metadata: %{}}
  end

  defp start(model, options \\ []),
    do: start_server([model: model, checkpoint: checkpoint(model), device: :cpu] ++ options)

  # What the engine reports about a server's model now.
  defp engine_info(server) do
    {:ok, info} = Runtime.ask(%{"op" => "info", "model_id" => :sys.get_state(server).model_id}, 60_000)
    info
  end

  test "voices of nano", %{tmp_dir: dir} do
    recording = recording()
    server = start(:nano, max_voices: 10, voices: dir)
    path = Path.join(dir, "ann.wav")
    :ok = Audio.write(recording, path, encoding: :f32)

    assert {:ok, voice} = Voice.clone(path, server: server, name: "Ann", note: "agreed")
    assert %{note: "agreed", model: "nano", sample_rate: 24_000} = voice.metadata
    assert voice.metadata.clipped == 0.0
    assert_in_delta voice.metadata.seconds, 5.1, 0.001
    assert voice.metadata.loudness < -10 and voice.metadata.loudness > -40
    assert [short] = voice.metadata.warnings
    assert short =~ "it is 5.1 s long: with 10 to 15 s"
    assert inspect(voice) == ~s(#Chatterbex.Voice<"Ann", turbo, 5.1 s>)

    saved = Path.join(dir, "saved.voice")
    assert :ok = Voice.save(voice, saved)
    assert {:ok, ^voice} = Voice.load(saved)

    speak = fn voice ->
      assert {:ok, audio} = Chatterbex.generate(server, "Hello there.", voice: voice, seed: 3, max_tokens: 5)
      audio
    end

    first = speak.(voice)

    for {same, what} <- [
          {{:file, saved}, "file"},
          {"saved", "name"},
          {{:file, path}, "recording"},
          {recording, "audio"}
        ] do
      assert speak.(same).samples == first.samples, what
    end

    other = speak.(nil)
    assert other.samples != first.samples

    options = [seed: 3, max_tokens: 5, norm_loudness: false]
    assert {:ok, as_loud} = Chatterbex.generate(server, "Hello there.", [voice: recording] ++ options)
    assert as_loud.samples != first.samples
    assert {:ok, voice} = Voice.clone(recording, server: server, norm_loudness: false)
    assert speak.(voice).samples == as_loud.samples
    assert speak.(recording).samples == first.samples

    hundred_voices(server, dir)
  end

  # Each gives different audio, and the model keeps at most ten.
  defp hundred_voices(server, dir) do
    for n <- 1..100, do: File.write!(Path.join(dir, "voice #{n}.voice"), voice(%{"name" => "#{n}"}, n))
    :rand.seed(:exsss, 7)

    memory =
      for {n, count} <- 1..100 |> Enum.shuffle() |> Enum.with_index(1) do
        assert {:ok, _audio} =
                 Chatterbex.generate(server, "Yes.", voice: "voice #{n}", seed: 1, max_tokens: 1)

        if rem(count, 20) == 0, do: {count, engine_info(server), resident_bytes()}
      end

    memory = Enum.reject(memory, &is_nil/1)

    for {count, info, resident} <- memory do
      IO.puts(
        "  #{count} voices: #{info["voices"]} kept, #{info["memory"]["voices"]} bytes, resident #{div(resident, 1024)} kB"
      )

      assert info["voices"] == 10
      assert info["memory"]["voices"] > 0
    end

    # All have the same size.
    assert memory
           |> Enum.map(fn {_count, info, _resident} -> info["memory"]["voices"] end)
           |> Enum.uniq()
           |> length() == 1

    {_count, _info, early} = hd(memory)
    {_count, _info, late} = List.last(memory)
    assert late - early < 50 * 1024 * 1024
  end

  test "conversion", %{tmp_dir: dir} do
    speech = recording()
    server = start(:conversion)
    speaker = %{speech | samples: binary_part(speech.samples, 0, 4 * 26_000)}
    second = %{speech | samples: binary_part(speech.samples, 4 * 40_000, 4 * 24_000)}
    path = Path.join(dir, "second.wav")
    :ok = Audio.write(second, path, encoding: :f32)
    options = [voice: speaker, server: server, seed: 1]

    assert {:ok, audio} = Chatterbex.convert(second, options)
    assert audio.sample_rate == 24_000
    assert_in_delta Audio.duration(audio), 1.0, 0.041
    assert audio.metadata.model == :conversion
    assert {:ok, %Audio{samples: samples}} = Chatterbex.convert(path, options)
    assert samples == audio.samples

    assert {:ok, other} = Chatterbex.convert(second, Keyword.put(options, :voice, tone(1.2)))
    assert byte_size(other.samples) == byte_size(audio.samples)
    assert other.samples != audio.samples

    # In pieces, one of them silent: as long as the whole.
    silence = %{second | samples: :binary.copy(<<0::32>>, 40_000)}
    long = %{second | samples: second.samples <> silence.samples <> second.samples}
    {:ok, validated} = Chatterbex.Options.validate(:convert, options)
    {:ok, plan} = Plan.new(server, validated, :audio)
    {:ok, recording} = Conversion.recording(long)

    assert {:ok, joined} =
             Conversion.convert(plan, recording, System.monotonic_time(:millisecond), %{
               piece: 1.5,
               search: 0.5,
               rest: 0.2
             })

    assert joined.metadata.pieces in 2..4
    assert_in_delta Audio.duration(joined), Audio.duration(long), 0.081

    assert {:error, %{reason: :not_supported, message: message}} = Chatterbex.generate(server, "Hello")
    assert message =~ "the model :conversion does not speak text"

    assert_raise Chatterbex.Error, ~r/does not speak text/, fn ->
      Enum.to_list(Chatterbex.stream(server, "Hello"))
    end
  end
end
