defmodule Chatterbex.TestingTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
  import Chatterbex.VoiceHelp, only: [tone: 1]

  alias Chatterbex.{Audio, Error, Test, Voice}

  doctest Chatterbex.Test

  @moduletag :tmp_dir

  defp start(options \\ []), do: start_server([testing: true] ++ options)

  describe "a server for tests" do
    test "speaks a tone of plausible length at once" do
      server = start(model: :turbo)
      text = "This is a sentence of forty-five characters."

      assert {:ok, %Audio{sample_rate: 24_000, channels: 1} = audio} =
               Chatterbex.generate(server, text, seed: 3)

      assert_in_delta Audio.duration(audio), 3, 0.1
      assert %{model: :turbo, seed: 3, voice: "built-in", finish_reason: "stop", pieces: 1} = audio.metadata
      assert {:ok, loudness} = Audio.loudness(audio)
      assert_in_delta loudness, -23, 3
    end

    test "streams, to its reader and to a process" do
      server = start()

      chunks =
        server
        |> Chatterbex.stream(["Hello. ", "How are ", "you today, my good old friend?"])
        |> Enum.to_list()

      assert [%{text: "Hello."}, %{pause: 250}, %{piece: 1}, %{piece: 1}, %{piece: 1}] =
               Enum.map(chunks, & &1.metadata)

      {:ok, ref} = Chatterbex.stream_to("Hello.", self(), server: server)
      assert_receive {:chatterbex, ^ref, {:chunk, %Audio{}}}
      assert_receive {:chatterbex, ^ref, :done}
    end

    test "clones and converts", %{tmp_dir: dir} do
      path = Path.join(dir, "ann.wav")
      :ok = Audio.write(tone(6), path)
      turbo = start(model: :turbo)

      assert {:ok, %Voice{family: "turbo", name: "Ann"} = voice} =
               Voice.clone(path, server: turbo, name: "Ann")

      assert %{seconds: 6.0, model: "turbo"} = voice.metadata
      assert {:ok, _audio} = Chatterbex.generate(turbo, "Hello.", voice: voice)
      assert :ok = Voice.save(voice, Path.join(dir, "ann.voice"))
      assert Voice.load!(Path.join(dir, "ann.voice")) == voice

      conversion = start(model: :conversion)
      assert {:ok, audio} = Chatterbex.convert(path, voice: {:file, path}, server: conversion)
      assert Audio.duration(audio) == 6.0
    end

    test "refuses the same as its model" do
      server = start(model: :turbo)

      assert {:error, %Error{reason: :not_supported}} =
               Chatterbex.generate(server, "Hello.", exaggeration: 0.7)

      assert {:error, %Error{reason: :invalid_text}} = Chatterbex.generate(server, "...")

      assert {:error, %Error{reason: :invalid_option}} =
               Chatterbex.generate(server, "Hello.", voice: "nobody")

      assert {:error, %Error{reason: :voice_too_short}} = Voice.clone(tone(1), server: server)

      assert {:error, %Error{reason: :not_supported}} =
               Chatterbex.convert(tone(2), voice: tone(6), server: server)

      assert {:error, %Error{reason: :unknown_model}} =
               Chatterbex.start_link(testing: true, model: :no_such_model)
    end

    test "describes itself" do
      assert {:ok, %{testing: true, status: :ready, model: :nano, device: %{requested: :mps, actual: :cpu}}} =
               Chatterbex.info(server: start(model: :nano, device: :mps, isolation: :peer))
    end

    test "may be in a pool" do
      name = :"pool_#{System.unique_integer([:positive])}"
      start_supervised!({Chatterbex.Pool, name: name, size: 2, model: :turbo, testing: true})
      assert {:ok, _audio} = Chatterbex.generate(name, "Hello.")
      assert [%{text: "Hello.", model: :turbo}] = Test.requests()
    end
  end

  describe "requests" do
    test "are those of the test and of processes that it started" do
      server = start(model: :english)
      assert {:ok, _audio} = Chatterbex.generate(server, "One.\n\nTwo.", seed: 1, exaggeration: 0.2)
      assert {:ok, _audio} = Task.await(Task.async(fn -> Chatterbex.generate("Three.", server: server) end))
      {:ok, ref} = Chatterbex.stream_to(["Fo", "ur. Fi", "ve."], self(), server: server)
      assert_receive {:chatterbex, ^ref, :done}, 5_000

      test = self()

      stranger =
        spawn(fn ->
          send(test, {self(), Chatterbex.generate(server, "Six.")}) && receive(do: (:never -> :ok))
        end)

      assert_receive {^stranger, {:ok, _audio}}, 5_000

      assert [
               %{
                 function: :generate,
                 server: ^server,
                 model: :english,
                 text: "One.\n\nTwo.",
                 audio: nil,
                 options: options
               },
               %{function: :generate, text: "Three."},
               %{function: :stream, text: "Four. Five."}
             ] = Test.requests()

      assert %{seed: 1, exaggeration: 0.2, priority: :normal} = options
      refute is_map_key(options, :server)
      assert [%{text: "Six."}] = Test.requests(from: stranger)

      assert %{text: "Six."} =
               Enum.find(Test.requests(from: :anyone), &(&1.server == server and &1.text == "Six."))
    end

    test "have the voice as passed, and the audio" do
      server = start(model: :turbo)
      recording = tone(6)
      assert {:ok, voice} = Voice.clone(recording, server: server, note: "agreed")
      assert {:ok, _audio} = Chatterbex.generate(server, "Hello.", voice: voice)

      assert [%{function: :clone, text: nil, audio: audio, options: %{note: "agreed"}}, speech] =
               Test.requests()

      assert audio.samples == recording.samples
      assert %{options: %{voice: ^voice}, audio: nil} = speech
    end

    test "are forgotten with their process" do
      server = start()

      task =
        Task.async(fn ->
          receive(do: (:go -> Chatterbex.generate(server, "Hello.") && receive(do: (:end -> :ok))))
        end)

      # The task has this test among its callers. Requests of an unrelated process do not belong to the test.
      send(task.pid, :go)
      await(fn -> Test.requests(from: task.pid) != [] end)
      send(task.pid, :end)
      Task.await(task)
      assert [%{text: "Hello."}] = Test.requests()

      {stranger, monitor} = spawn_monitor(fn -> Chatterbex.generate(server, "Hello.") end)
      assert_receive {:DOWN, ^monitor, :process, ^stranger, :normal}, 5_000
      await(fn -> Test.requests(from: stranger) == [] end)
    end
  end

  describe "a stub" do
    test "makes requests fail, by a reason or an error" do
      server = start(model: :turbo)
      assert :ok = Test.stub({:error, :overloaded})
      assert {:error, %Error{reason: :overloaded}} = Chatterbex.generate(server, "Hello.")

      assert %Error{reason: :overloaded} =
               catch_error(server |> Chatterbex.stream("Hello.") |> Enum.to_list())

      assert {:error, %Error{reason: :overloaded}} = Voice.clone(tone(6), server: server)

      assert {:error, %Error{reason: :overloaded}} =
               Task.await(Task.async(fn -> Chatterbex.generate(server, "Hello.") end))

      error = Error.new(:out_of_memory, "no more", %{needed: 7})
      assert :ok = Test.stub({:error, error})
      assert Chatterbex.generate(server, "Hello.") == {:error, error}
      assert [_, _, %{function: :clone}, _, %{text: "Hello."}] = Test.requests()

      assert :ok = Test.stub(:tone)
      assert {:ok, _audio} = Chatterbex.generate(server, "Hello.")
    end

    test "only applies to processes with the test among their callers" do
      server = start()
      :ok = Test.stub({:error, :timeout})
      test = self()

      stranger =
        spawn(fn -> receive(do: (:go -> send(test, {self(), Chatterbex.generate(server, "Hello.")}))) end)

      send(stranger, :go)
      assert_receive {^stranger, {:ok, _audio}}, 5_000

      other =
        spawn(fn -> receive(do: (:go -> send(test, {self(), Chatterbex.generate(server, "Hello.")}))) end)

      :ok = Test.stub({:error, :out_of_memory}, from: other)
      send(other, :go)
      assert_receive {^other, {:error, %Error{reason: :out_of_memory}}}, 5_000
    end

    test "may be a function, and may fail a stream in its middle" do
      server = start()

      :ok =
        Test.stub(fn
          %{piece: "Two."} -> {:error, :generation_failed}
          %{text: "One." <> _} -> :silence
        end)

      {:ok, ref} = Chatterbex.stream_to("One. Two. Three.", self(), server: server, ahead: 1)
      assert_receive {:chatterbex, ^ref, {:chunk, one}}, 5_000
      assert Audio.loudness(one) == {:ok, :silent}
      assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :generation_failed}}}, 5_000
    end

    test "that raises or returns nonsense is an error, and harms no server" do
      server = start()
      :ok = Test.stub(fn _request -> raise "boom" end)

      assert {:error, %Error{reason: :generation_failed, message: message}} =
               Chatterbex.generate(server, "Hello.")

      assert message =~ "boom"
      :ok = Test.stub(fn _request -> :loud end)

      assert {:error, %Error{reason: :invalid_option, message: message}} =
               Chatterbex.generate(server, "Hello.")

      assert message =~ "a stub must be :tone"
      assert Process.alive?(server)
      assert_raise Error, ~r/a stub must be :tone/, fn -> Test.stub(:loud) end
    end
  end

  test "an application can be tested where nothing is set up", %{tmp_dir: dir} do
    code = """
    Application.put_env(:chatterbex, :testing, true)
    {:ok, _apps} = Application.ensure_all_started(:chatterbex)
    {:error, %{reason: :not_set_up}} = Chatterbex.Python.find()
    {:ok, _tree} = Supervisor.start_link([{Chatterbex, name: MyApp.Speech, model: :turbo}], strategy: :one_for_one)
    :ok = Chatterbex.await_ready(server: MyApp.Speech)
    {:ok, audio} = Chatterbex.generate("Hello!")
    {:ok, _audio} = Chatterbex.generate(MyApp.Speech, "Hello! [laugh]")
    :ok = Chatterbex.Audio.write(audio, "hello.wav")
    [%{text: "Hello!", model: :hibari}, %{server: MyApp.Speech}] = Chatterbex.Test.requests()
    IO.puts("spoken")
    """

    env = [
      {"CHATTERBEX_HOME", Path.join(dir, "nowhere")},
      {"PATH", Path.dirname(System.find_executable("erl")) <> ":/usr/bin:/bin"}
    ]

    {output, status} = elixir(code, env: env, cd: dir)
    assert {output =~ "spoken", status} == {true, 0}, output
    refute File.exists?(Path.join(dir, "nowhere"))
    assert Audio.duration(Audio.read!(Path.join(dir, "hello.wav"))) > 0.2
  end
end
