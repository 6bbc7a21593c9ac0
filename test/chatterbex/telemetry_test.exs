defmodule Chatterbex.TelemetryTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
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

  test "a generation that fails, below or at the door", %{name: name} do
    start_fake(name: name)

    for {text, reason} <- [{"fail", :generation_failed}, {"", :invalid_text}] do
      assert {:error, error} = Chatterbex.generate(name, text)
      assert {%{duration: _duration}, metadata} = event([:generate, :exception], name)
      assert %{kind: :error, reason: ^error, stacktrace: []} = metadata
      assert %Error{reason: ^reason} = error
    end
  end

  test "loading a model", %{name: name} do
    start_fake(name: name, device: :cpu)
    assert {%{system_time: _time}, %{model: :fake, device: :cpu}} = event([:model, :load, :start], name)
    assert {%{duration: _duration}, %{model: :fake, device: :cpu}} = event([:model, :load, :stop], name)
  end

  test "a model that cannot be loaded", %{name: name} do
    log =
      capture_log(fn ->
        start_supervised!({Chatterbex, name: name, model: :fake, model_options: %{"load" => "fail"}})
        assert {:error, error} = Chatterbex.await_ready(server: name)
        assert {_measurements, %{reason: ^error, kind: :error}} = event([:model, :load, :exception], name)
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
end
