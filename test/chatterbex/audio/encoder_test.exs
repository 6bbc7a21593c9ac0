defmodule Chatterbex.Audio.EncoderTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp, only: [elixir: 1]

  alias Chatterbex.{Audio, Native, Options}
  alias Chatterbex.Audio.{Encoder, Stretcher}

  @audio %Audio{samples: <<0::2_400*32>>, sample_rate: 24_000}

  defp encoder(format) do
    {:ok, options} = Options.validate(format, [])
    {:ok, encoder} = Encoder.new(format, 24_000, 1, options)
    encoder
  end

  test "a finished encoder, and anything that is not an encoder, are errors" do
    encoder = encoder(:mp3)
    assert {:ok, bytes} = Encoder.push(encoder, @audio)
    assert byte_size(bytes) > 0
    assert {:ok, {_bytes, [{0, _tag}]}} = Encoder.finish(encoder)

    assert {:error, %{reason: :invalid_option, message: "this encoder has ended" <> _rest}} =
             Encoder.push(encoder, @audio)

    assert {:error, %{reason: :invalid_option}} = Encoder.finish(encoder)

    {:ok, stretcher} = Native.Audio.stretcher_new(2.0, 24_000, 1)
    assert {:ok, {_samples, []}} = Native.Audio.flow_finish(stretcher)

    for other <- [make_ref(), stretcher, nil] do
      assert {:error, {:invalid_option, _message, _details}} = Native.Audio.flow_push(other, "")
      assert {:error, {:invalid_option, _message, _details}} = Native.Audio.flow_finish(other)
    end
  end

  test "an encoder can be used by several processes" do
    encoder = encoder(:flac)
    tasks = for _task <- 1..20, do: Task.async(fn -> Encoder.push(encoder, @audio) end)
    parts = for {:ok, bytes} <- Task.await_many(tasks), do: bytes
    assert length(parts) == 20
    assert {:ok, {_bytes, _patches}} = Encoder.finish(encoder)
  end

  test "stretching accepts an Enumerable, even an empty one" do
    assert Enum.to_list(Stretcher.stream([], 2.0)) == []
    assert [@audio] = Enum.to_list(Stretcher.stream([@audio], 1.0))
    samples = [@audio, @audio] |> Stretcher.stream(0.5) |> Enum.map_join(& &1.samples)
    assert byte_size(samples) == 4 * byte_size(@audio.samples)

    assert_raise Chatterbex.Error, ~r/0.25 to 4 times/, fn ->
      Enum.to_list(Stretcher.stream([@audio], 5.0))
    end
  end

  # In its own VM: other tests use the module.
  test "after a code upgrade the encoders still work, and unreferenced ones are dropped" do
    code = """
    alias Chatterbex.Audio.Encoder
    audio = %Chatterbex.Audio{samples: <<0::24_000*32>>, sample_rate: 24_000}
    {:ok, encoder} = Encoder.new(:mp3, 24_000, 1, %{bitrate: 64_000})
    {:ok, _bytes} = Encoder.push(encoder, audio)

    for _round <- 1..3 do
      {:module, module} = :code.load_file(Chatterbex.Native.Audio)
      {:ok, other} = Encoder.new(:mp3, 24_000, 1, %{bitrate: 64_000})
      {:ok, bytes} = Encoder.push(encoder, audio)
      true = byte_size(bytes) > 7_000
      :code.purge(module)
      {:ok, _bytes} = Encoder.push(other, audio)
    end

    {:ok, _ending} = Encoder.finish(encoder)

    memory = fn ->
      {kilobytes, 0} = System.cmd("ps", ["-o", "rss=", "-p", System.pid()])
      kilobytes |> String.trim() |> String.to_integer()
    end

    left = fn ->
      for _encoder <- 1..200 do
        {:ok, encoder} = Encoder.new(:opus, 24_000, 1, %{bitrate: 48_000})
        {:ok, _bytes} = Encoder.push(encoder, audio)
      end

      :erlang.garbage_collect()
    end

    left.()
    before = memory.()
    for _round <- 1..10, do: left.()
    true = memory.() - before < 30_000
    IO.puts("well")
    """

    assert {output, 0} = elixir(code)
    assert output =~ "well"
  end
end
