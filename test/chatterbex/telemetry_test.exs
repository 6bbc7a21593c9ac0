defmodule Chatterbex.TelemetryTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
  import Chatterbex.VoiceHelp, only: [tone: 1]
  import ExUnit.CaptureLog

  alias Chatterbex.{Error, Telemetry}

  setup do
    test = self()
    id = make_ref()

    :telemetry.attach_many(
      id,
      Telemetry.events(),
      fn event, measurements, metadata, _config -> send(test, {:event, event, measurements, metadata}) end,
      nil
    )

    on_exit(fn -> :telemetry.detach(id) end)
    %{name: :"speech_#{System.unique_integer([:positive])}"}
  end

  # Other tests' servers send events too: each test listens to its own.
  defp event(name, server) do
    assert_receive {:event, [:chatterbex | ^name], measurements, %{server: ^server} = metadata}, 5_000
    {measurements, metadata}
  end

  test "a generation", %{name: name} do
    start_fake(name: name)
    assert {:ok, _audio} = Chatterbex.generate(name, "hello", seed: 3)

    assert {%{system_time: _time, characters: 5}, _metadata} = event([:generate, :start], name)

    assert {%{duration: duration, audio_seconds: seconds, samples: 5}, %{seed: 3, model: :fake}} =
             event([:generate, :stop], name)

    assert duration > 0
    assert_in_delta seconds, 5 / 24_000, 1.0e-9
    assert {%{duration: _wait, waiting: 0}, %{model: :fake}} = event([:queue, :wait], name)
  end

  test "a generation that fails stops with the error, wherever it fails", %{name: name} do
    start_fake(name: name)

    for {text, reason} <- [{"fail", :generation_failed}, {"", :invalid_text}] do
      assert {:error, error} = Chatterbex.generate(name, text)
      assert {%{duration: _duration}, %{error: ^error}} = event([:generate, :stop], name)
      assert %Error{reason: ^reason} = error
    end
  end

  test "the events of a span belong together", %{name: name} do
    start_fake(name: name)
    assert {:ok, _audio} = Chatterbex.generate(name, "hello")

    assert {%{monotonic_time: started}, %{telemetry_span_context: context}} = event([:generate, :start], name)

    assert {%{monotonic_time: stopped, duration: duration},
            %{telemetry_span_context: ^context, error: nil, model: :fake}} = event([:generate, :stop], name)

    assert stopped - started == duration
    assert is_reference(context)
  end

  test "an exception ends its span and is raised again", %{name: name} do
    start_fake(name: name)
    boom = fn _told -> raise ArgumentError, "boom" end

    assert_raise ArgumentError, "boom", fn -> Chatterbex.generate(name, "hello", progress: boom) end
    assert {%{duration: _, monotonic_time: _}, metadata} = event([:generate, :exception], name)
    assert %{kind: :error, reason: %ArgumentError{message: "boom"}, stacktrace: [_ | _]} = metadata

    source = Stream.map(["One. ", "Two."], fn _text -> throw(:ball) end)
    assert catch_throw(Enum.to_list(Chatterbex.stream(name, source))) == :ball
    assert {%{chunks: 0}, metadata} = event([:stream, :exception], name)
    assert %{kind: :throw, reason: :ball, stacktrace: [_ | _]} = metadata
  end

  test "the default server has its name in every event, whatever the options are" do
    for options <- [[seed: -1], [server: nil, seed: -1], :no_options] do
      assert {:error, _error} = Chatterbex.generate("hello", options)

      assert {_measurements, %{error: %Error{reason: :invalid_option}}} =
               event([:generate, :stop], Chatterbex.DefaultServer)
    end

    assert {:error, _error} = Chatterbex.convert("none.wav", voice: "ann")

    assert {_measurements, %{error: %Error{reason: :file_error}}} =
             event([:convert, :stop], Chatterbex.DefaultServer)
  end

  describe "a stream" do
    test "that is read to its end", %{name: name} do
      start_fake(name: name)
      assert [one, pause, two] = name |> Chatterbex.stream("One. Two.") |> Enum.to_list()

      assert {%{characters: 9, system_time: _}, %{telemetry_span_context: context}} =
               event([:stream, :start], name)

      assert {%{number: 0, since_start: first}, %{telemetry_span_context: ^context}} =
               event([:stream, :chunk], name)

      assert {%{chunks: 3, first_audio: ^first} = measurements, metadata} = event([:stream, :stop], name)
      assert %{telemetry_span_context: ^context, model: :fake, error: nil, halted: false} = metadata
      seconds = [one, pause, two] |> Enum.map(&Chatterbex.Audio.duration/1) |> Enum.sum()
      assert_in_delta measurements.audio_seconds, seconds, 1.0e-9
      assert measurements.duration >= first
    end

    test "that is halted by its consumer, or because the consumer fails", %{name: name} do
      start_fake(name: name)
      assert [_one] = name |> Chatterbex.stream("One. Two. Three.") |> Enum.take(1)
      assert {%{chunks: 1}, %{halted: true, error: nil}} = event([:stream, :stop], name)

      assert_raise RuntimeError, fn ->
        name |> Chatterbex.stream("One. Two.") |> Enum.each(fn _ -> raise "no" end)
      end

      assert {%{chunks: 1}, %{halted: true, error: nil}} = event([:stream, :stop], name)
    end

    test "that fails, before its first chunk or after", %{name: name} do
      error = catch_error(name |> Chatterbex.stream(["Hello."]) |> Enum.to_list())
      assert {measurements, %{error: ^error, halted: false}} = event([:stream, :stop], name)
      assert %{chunks: 0} = measurements
      refute is_map_key(measurements, :first_audio)
      assert {start, _metadata} = event([:stream, :start], name)
      refute is_map_key(start, :characters)

      start_fake(name: name, max_batch: 1)
      error = catch_error(name |> Chatterbex.stream("One.\n\nfail.") |> Enum.to_list())
      assert {%{chunks: 2}, %{error: ^error, halted: false}} = event([:stream, :stop], name)
      refute_received {:event, [:chatterbex, :stream, _end], _measurements, %{server: ^name, error: _}}
    end

    test "that is cancelled, or whose listener ends", %{name: name} do
      server = start_fake(name: name)
      {:ok, ref} = Chatterbex.stream_to("hold", self(), server: name)
      await_held(server, 1)
      assert :ok = Chatterbex.cancel(ref)
      assert_received {:chatterbex, ^ref, {:error, %Error{reason: :cancelled}}}
      assert {%{chunks: 0}, %{halted: true, error: nil}} = event([:stream, :stop], name)

      listener = spawn(fn -> receive(do: (:never -> :ok)) end)
      {:ok, _ref} = Chatterbex.stream_to("hold", listener, server: name)
      await_held(server, 1)
      Process.exit(listener, :kill)
      assert {%{chunks: 0}, %{halted: true, error: nil}} = event([:stream, :stop], name)
    end

    test "is cancelled even while its sender waits for user code", %{name: name} do
      server = start_fake(name: name)
      test = self()

      progress = fn _told ->
        send(test, :blocked)
        receive(do: (:never -> :ok))
      end

      {:ok, ref} = Chatterbex.stream_to("One. Two.", self(), server: server, progress: progress)
      assert_receive :blocked, 5_000
      assert :ok = Chatterbex.cancel(ref)
      assert_received {:chatterbex, ^ref, {:error, %Error{reason: :cancelled}}}
    end
  end

  test "loading a model", %{name: name} do
    start_fake(name: name, device: :cpu)
    assert {%{system_time: _time}, %{model: :fake, device: :cpu}} = event([:model, :load, :start], name)

    assert {%{duration: _duration}, %{model: :fake, device: :cpu, error: nil}} =
             event([:model, :load, :stop], name)
  end

  test "a server that is stopped while it loads ends the span", %{name: name} do
    busy = start_fake()
    Task.async(fn -> Chatterbex.generate(busy, "sleep:300") end)
    {:ok, server} = Chatterbex.start_link(name: name, model: :fake)
    :ok = Chatterbex.stop(server: server)
    assert {_measurements, %{error: %Error{reason: :cancelled}}} = event([:model, :load, :stop], name)
  end

  test "a model that cannot be loaded", %{name: name} do
    log =
      capture_log(fn ->
        start_supervised!({Chatterbex, name: name, model: :fake, model_options: %{load: "fail"}})
        assert {:error, error} = Chatterbex.await_ready(server: name)
        assert {_measurements, %{error: ^error}} = event([:model, :load, :stop], name)
      end)

    assert log =~ "#{inspect(name)} has no model:"
  end

  test "a fallback: one event, one line in the log, and info keeps the reason", %{name: name} do
    start_fake(name: name, device: "mps")

    log = capture_log(fn -> assert {:ok, _audio} = Chatterbex.generate(name, "notice") end)
    assert {_measurements, %{from: "mps", to: "cpu", reason: "told to"}} = event([:device, :fallback], name)
    refute_received {:event, [:chatterbex, :device, :fallback], _measurements, %{server: ^name}}
    assert length(Regex.scan(~r/#{inspect(name)} runs on the CPU instead of mps: told to/, log)) == 1

    assert {:ok, %{device: %{requested: :mps, actual: :cpu, reason: "told to"}}} =
             Chatterbex.info(server: name)
  end

  test "a voice that is cloned, and one that fails", %{name: name} do
    start_supervised!({Chatterbex, name: name, model: :turbo, testing: true})
    assert {:ok, _voice} = Chatterbex.Voice.clone(tone(6), server: name, name: "Ann")
    assert {%{system_time: _time}, %{telemetry_span_context: context}} = event([:clone, :start], name)

    assert {%{duration: _, seconds: 6.0} = measurements,
            %{telemetry_span_context: ^context, model: :turbo, error: nil} = metadata} =
             event([:clone, :stop], name)

    assert {:error, error} = Chatterbex.Voice.clone(tone(1), server: name)
    assert {failed, %{error: ^error}} = event([:clone, :stop], name)
    refute is_map_key(failed, :seconds)

    for %{event_name: [:chatterbex, :clone, :stop]} = metric <- Telemetry.metrics() do
      assert is_map_key(measurements, List.last(metric.name))
      assert %{server: ^name, model: :turbo, result: :ok} = metric.tag_values.(metadata)
    end

    assert capture_log(fn ->
             Telemetry.Log.handle([:chatterbex, :clone, :stop], measurements, metadata, :error)
           end) =~ ~r/#{inspect(name)} made a voice of 6.00 s of audio with :turbo in \d+ ms/
  end

  describe "metrics" do
    test "name existing events and measurements", %{name: name} do
      start_fake(name: name)
      assert {:ok, _audio} = Chatterbex.generate(name, "hello")
      assert [_chunk] = name |> Chatterbex.stream("hello") |> Enum.to_list()
      assert {generated, metadata} = event([:generate, :stop], name)
      assert {streamed, _metadata} = event([:stream, :stop], name)
      metrics = Telemetry.metrics()
      assert length(metrics) > 10

      for metric <- metrics do
        assert metric.event_name in Telemetry.events()
        tags = metric.tag_values.(metadata)
        assert %{server: ^name, model: :fake, result: :ok} = tags
        assert metric.tags -- Map.keys(tags) == []
      end

      measured =
        for %{event_name: [:chatterbex, :generate, :stop]} = metric <- metrics, do: List.last(metric.name)

      assert measured -- Map.keys(generated) == [:duration, :rtf, :tokens_per_second]

      measured =
        for %{event_name: [:chatterbex, :stream, :stop]} = metric <- metrics, do: List.last(metric.name)

      assert measured -- Map.keys(streamed) == [:duration]
    end

    test "have printable tags for every server and outcome" do
      [metric | _] = Telemetry.metrics()

      assert %{server: "#PID<" <> _, model: :unknown, result: :overloaded} =
               metric.tag_values.(%{server: self(), error: Error.new(:overloaded, "full")})
    end
  end

  describe "the default logger" do
    @describetag :capture_log

    test "writes a line for each operation, at its level", %{name: name} do
      assert :ok = Telemetry.attach_default_logger(level: :error)
      on_exit(&Telemetry.detach_default_logger/0)

      log =
        capture_log(fn ->
          start_fake(name: name)
          assert {:ok, _audio} = Chatterbex.generate(name, "a secret")
          assert {:error, _error} = Chatterbex.generate(name, "a secret fail")
          assert [_chunk] = name |> Chatterbex.stream("a secret") |> Enum.to_list()
        end)

      shown = inspect(name)
      assert log =~ ~r/\[error\].* chatterbex: #{shown} has loaded :fake in \d+ ms/
      assert log =~ ~r/chatterbex: #{shown} spoke 0.00 s of audio with :fake in \d+ ms/
      assert log =~ ~r/chatterbex: #{shown} failed in a generate after \d+ ms: :generation_failed/
      assert log =~ ~r/chatterbex: #{shown} streamed 0.00 s of audio in 1 chunks, the first after \d+ ms/
      refute log =~ "secret"

      :ok = Telemetry.detach_default_logger()
      refute capture_log(fn -> Chatterbex.generate(name, "hello") end) =~ shown
    end
  end
end
