defmodule Chatterbex.ServerTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  describe "a request" do
    test "is answered with its own audio" do
      server = start_fake()

      assert {:ok, %Audio{samples: samples, sample_rate: 24_000, channels: 1} = audio} =
               Chatterbex.generate(server, "abc")

      assert samples == echo("abc")
      assert audio.metadata.model == :fake
      assert audio.metadata.seed in 0..0xFFFFFFFF
    end

    test "gives the same audio in many steps as in one" do
      server = start_fake()
      text = "a text steps:7"
      assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, text)
      assert samples == echo(text)
    end

    test "reaches a server by any kind of name" do
      local = :"speech_#{System.unique_integer([:positive])}"
      start_fake(name: local)
      assert {:ok, _audio} = Chatterbex.generate(local, "local")
      assert {:ok, _audio} = Chatterbex.generate({local, node()}, "with its node")

      global = {:global, {:speech, System.unique_integer()}}
      start_fake(name: global)
      assert {:ok, _audio} = Chatterbex.generate("global", server: global)
    end

    test "to a server that does not exist" do
      assert {:error, %Error{reason: :not_running, message: message}} = Chatterbex.generate(:nobody, "Hello")

      assert message ==
               "no server runs as :nobody. Start it under your supervisor: children = [{Chatterbex, name: :nobody}]"

      far = {:nobody, :"none@127.0.0.1"}
      assert {:error, %Error{reason: :noconnection, message: message}} = Chatterbex.generate(far, "Hello")
      assert message =~ "is not connected"
      settings = %{timeout: 1_000, deadline: nil, priority: :normal, options: %{}}
      assert {:error, %Error{reason: :noconnection}} = Chatterbex.Client.open(far, settings, [])
    end

    test "to a server whose registry does not exist" do
      for server <- [{:via, Registry, {NoSuchRegistry, :speech}}, {:via, NoSuchModule, :speech}] do
        assert {:error, %Error{reason: :not_running, message: message}} = Chatterbex.generate(server, "Hello")
        assert message =~ ~r/^the server .* cannot be looked up: .* Is its registry running\?$/s
        assert {:error, %Error{reason: :not_running}} = Chatterbex.info(server: server)
        assert {:error, %Error{reason: :not_running}} = Chatterbex.stop(server: server)
        assert %Error{reason: :not_running} = catch_error(Enum.to_list(Chatterbex.stream(server, "Hello")))
        assert {:error, %Error{reason: :not_running}} = Chatterbex.Voice.clone("ann.wav", server: server)
        settings = %{timeout: 1_000, deadline: nil, priority: :normal, options: %{}}
        assert {:error, %Error{reason: :not_running}} = Chatterbex.Client.open(server, settings, [])
        assert {:error, %Error{reason: :not_running, message: message}} = Chatterbex.start_link(name: server)
        assert message =~ ~r/^the server cannot be registered as .* Is its registry running\?$/s
      end
    end

    test "to something that is not a server" do
      for server <- ["foo", 7, {:a, :b, :c}, %{}] do
        assert {:error, %Error{reason: :invalid_option, message: message}} = Chatterbex.info(server: server)

        assert message ==
                 "option :server must be #{Chatterbex.Options.Schema.describe(:server)}, got #{inspect(server)}"

        assert {:error, %Error{reason: :invalid_option}} = Chatterbex.await_ready(server: server)
        assert {:error, %Error{reason: :invalid_option}} = Chatterbex.stop(server: server)
      end
    end

    test "with two servers" do
      assert {:error, %Error{reason: :invalid_option, message: message}} =
               Chatterbex.generate(:one, "Hello", server: :two)

      assert message == "two servers were given, :one and server: :two; give one"
    end

    test "leaves no message and no monitor behind" do
      server = start_fake()
      assert {:ok, _audio} = Chatterbex.generate(server, "hello")
      assert {:error, _error} = Chatterbex.generate(server, "fail")
      assert {:error, _error} = Chatterbex.generate(server, "hold", timeout: 20)
      assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]
      assert %{queue: %{requests: requests}, monitors: monitors} = :sys.get_state(server)
      assert {requests, monitors} == {%{}, %{}}
    end

    test "whose :progress fails leaves nothing behind" do
      server = start_fake(max_batch: 1)
      text = "One.\n\nPlease hold.\n\nThree."

      for how <- [fn -> raise "no" end, fn -> throw(:no) end, fn -> exit(:no) end] do
        assert {_kind, _reason} =
                 (try do
                    Chatterbex.generate(server, text, progress: fn _told -> how.() end)
                  catch
                    kind, reason -> {kind, reason}
                  end)

        assert {:ok, %{queue: %{open: 0}}} = Chatterbex.info(server: server)
        assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]
      end

      await_idle(server)
      assert call_model(server, "held") == %{"held" => 0}
    end
  end

  describe "bad input" do
    test "is refused before anything runs" do
      server = start_fake(max_characters: 100)

      for {text, options, reason} <- [
            {"", [], :invalid_text},
            {" \n", [], :invalid_text},
            {"?!", [], :invalid_text},
            {"\u{1F600}", [], :invalid_text},
            {nil, [], :invalid_text},
            {~c"hello", [], :invalid_text},
            {<<0xFF>>, [], :invalid_text},
            {"a\0b", [], :invalid_text},
            {String.duplicate("word ", 200_000), [], :invalid_text},
            {String.duplicate("a", 10_000), [], :invalid_text},
            {"hello", [sede: 1], :invalid_option},
            {"hello", [seed: "1"], :invalid_option},
            {"hello", [timeout: -1], :invalid_option},
            {"hello", [speed: 1.0], :not_supported},
            {"hello", [voice: "ann"], :not_supported},
            {"hello", "options", :invalid_option}
          ] do
        assert {:error, %Error{reason: ^reason, message: message}} =
                 Chatterbex.generate(server, text, options)

        assert String.length(message) < 400
      end

      assert {:ok, %{queue: %{waiting: 0, running: 0}}} = Chatterbex.info(server: server)
      assert call_model(server, "held") == %{"held" => 0}
    end

    test "gets an exact error" do
      server = start_fake(max_characters: 100)
      assert {:error, error} = Chatterbex.generate(server, String.duplicate("word ", 200_000))

      assert Exception.message(error) ==
               "the text is 1000000 characters long; at most 100 characters are spoken in one request. " <>
                 "Cut it into pieces, or raise :max_characters of the server."

      assert {:error, %{message: message}} = Chatterbex.start_link(model: :nobody)
      assert message == "there is no model :nobody. Chatterbex.models/0 lists all models."

      assert {:error, %{reason: :unknown_language}} =
               Chatterbex.generate(start_server(), "\u05E9\u05DC\u05D5\u05DD")
    end
  end

  describe "a failure inside Python" do
    test "fails its own request, and the next succeeds" do
      server = start_fake()

      for {text, reason, said} <- [
            {"fail", :generation_failed, "told to fail"},
            {"fail:timeout", :timeout, "told to fail"},
            {"oom", :out_of_memory, ""},
            {"refuse", :invalid_text, "told to refuse"},
            {"raise", :generation_failed, "told to raise"},
            {"nan", :generation_failed, ""},
            {"shape", :generation_failed, ""},
            {"lose", :generation_failed, "lost"},
            {"unsendable", :generation_failed, ""}
          ] do
        assert {:error, %Error{reason: ^reason, message: message}} = Chatterbex.generate(server, text)
        assert message =~ said
        assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, "and on")
        assert samples == echo("and on")
      end
    end

    test "does not affect other requests in the batch" do
      server = start_fake()
      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)
      assert {:error, %Error{}} = Chatterbex.generate(server, "fail")
      call_model(server, "release")
      assert {:ok, %Audio{samples: samples}} = Task.await(held)
      assert samples == echo("hold")
    end

    test "a model that breaks is loaded again by the next request" do
      server = start_fake()
      waiting = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)

      assert {:error, %Error{}} = Chatterbex.generate(server, "broken")
      assert {:error, %Error{}} = Task.await(waiting)
      assert {:ok, %{status: :failed, error: %Error{}}} = Chatterbex.info(server: server)
      await(fn -> match?({:ok, _audio}, Chatterbex.generate(server, "again")) end)
      assert {:ok, %{status: :ready}} = Chatterbex.info(server: server)
    end

    test "a model that cannot be loaded answers every request with the reason" do
      for {how, reason} <- [
            {"fail", :model_load_failed},
            {"oom", :out_of_memory},
            {"none", :model_load_failed}
          ] do
        server = start_supervised!({Chatterbex, model: :fake, model_options: %{load: how}}, id: how)
        assert {:error, %Error{reason: ^reason}} = Chatterbex.generate(server, "Hello")
        assert {:error, %Error{reason: ^reason}} = Chatterbex.await_ready(server: server)
        assert {:ok, %{status: :failed, error: %Error{reason: ^reason}}} = Chatterbex.info(server: server)
      end
    end
  end

  describe "a caller that is gone" do
    test "a caller that dies cancels its work" do
      server = start_fake()
      test = self()
      caller = spawn(fn -> send(test, {:answer, Chatterbex.generate(server, "hold")}) end)
      await_held(server, 1)
      Process.exit(caller, :kill)
      await_held(server, 0)
      await_idle(server)
      refute_received {:answer, _answer}
    end

    test "a caller that dies while it waits leaves the queue" do
      server = start_fake(max_batch: 1)
      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)
      waiting = spawn(fn -> Chatterbex.generate(server, "waiting") end)
      await(fn -> match?({:ok, %{queue: %{waiting: 1}}}, Chatterbex.info(server: server)) end)
      Process.exit(waiting, :kill)
      await(fn -> match?({:ok, %{queue: %{waiting: 0}}}, Chatterbex.info(server: server)) end)
      call_model(server, "release")
      assert {:ok, _audio} = Task.await(held)
    end

    test "a timeout cancels the work, running or waiting" do
      server = start_fake(max_batch: 1)

      assert {:error, %Error{reason: :timeout, message: message}} =
               Chatterbex.generate(server, "hold", timeout: 50)

      assert message =~ ~r/^no audio after \d+ ms: the request was still being spoken. Raise :timeout.$/
      await_held(server, 0)

      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)

      assert {:error, %Error{reason: :timeout, message: message}} =
               Chatterbex.generate(server, "waits", timeout: 50)

      assert message =~ "the request was still waiting for its turn"
      call_model(server, "release")
      assert {:ok, _audio} = Task.await(held)
      await_idle(server)
    end

    test "the server's timeout applies if the request has none" do
      server = start_fake(timeout: 50)
      assert {:error, %Error{reason: :timeout}} = Chatterbex.generate(server, "hold")
    end
  end

  describe "a server's life" do
    test "requests made while the model loads wait for it" do
      {:ok, server} = Chatterbex.start_link(model: :fake)
      assert {:ok, _audio} = Chatterbex.generate(server, "early")
      :ok = Chatterbex.stop(server: server)
    end

    test "stopping answers all waiting callers" do
      {:ok, server} = Chatterbex.start_link(model: :fake, max_batch: 2)
      tasks = for n <- 1..10, do: Task.async(fn -> Chatterbex.generate(server, "hold #{n}") end)
      await_held(server, 2)
      await(fn -> match?({:ok, %{queue: %{waiting: 8}}}, Chatterbex.info(server: server)) end)
      model_id = :sys.get_state(server).model_id
      assert :ok = Chatterbex.stop(server: server)

      for answer <- Task.await_many(tasks) do
        assert {:error, %Error{reason: :cancelled, message: message}} = answer
        assert message =~ "was stopped before the request was done"
      end

      await(fn -> not loaded?(model_id) end)
    end

    test "a killed server is restarted by its supervisor, and its old model is unloaded" do
      name = :"speech_#{System.unique_integer([:positive])}"
      start_supervised!({Chatterbex, name: name, model: :fake})
      assert {:ok, _audio} = Chatterbex.generate(name, "before")
      model_id = :sys.get_state(name).model_id
      waiting = Task.async(fn -> Chatterbex.generate(name, "hold") end)
      await_held(name, 1)

      name |> Process.whereis() |> Process.exit(:kill)
      assert {:error, %Error{reason: :engine_crashed, message: message}} = Task.await(waiting)
      assert message =~ "ended before it answered: :killed"
      await(fn -> match?({:ok, _audio}, Chatterbex.generate(name, "after")) end)

      await(fn -> not loaded?(model_id) end)
    end

    defp loaded?(model_id) do
      id = Chatterbex.Runtime.new_id()
      :ok = Chatterbex.Runtime.submit(%{"op" => "info", "id" => id, "model_id" => model_id})
      assert_receive {:chatterbex_event, ^id, event, _payload}, 5_000
      event == "done"
    end

    test "servers with the same and with different settings work side by side" do
      one = start_fake()
      other = start_fake(max_batch: 1, max_characters: 10)
      voice = start_server(threads: 1)
      text = "side by side"

      tasks =
        for _n <- 1..5, server <- [one, voice] do
          Task.async(fn -> {server, Chatterbex.generate(server, text, seed: 5)} end)
        end

      assert {:error, %Error{reason: :invalid_text}} = Chatterbex.generate(other, text)
      assert {:ok, %Audio{samples: short}} = Chatterbex.generate(other, "short")
      assert short == echo("short")

      for {server, {:ok, audio}} <- Task.await_many(tasks) do
        if server == one, do: assert(audio.samples == echo(text)), else: assert(Audio.duration(audio) > 0.5)
      end

      assert {:ok, %{queue: %{max_batch: 1}}} = Chatterbex.info(server: other)
      assert {:ok, %{queue: %{max_batch: 4}}} = Chatterbex.info(server: one)
    end

    test "a model that takes too long to load" do
      # The model thread is busy with another model's step for longer than this one may take.
      busy = start_fake()
      Task.async(fn -> Chatterbex.generate(busy, "sleep:500") end)
      await(fn -> match?({:ok, %{queue: %{running: 1}}}, Chatterbex.info(server: busy)) end)
      {:ok, server} = Chatterbex.start_link(model: :fake, load_timeout: 1)
      assert {:error, %Error{reason: :timeout, message: message}} = Chatterbex.await_ready(server: server)
      assert message =~ "was not ready within 1 ms. Raise :load_timeout."
      :ok = Chatterbex.stop(server: server)
    end
  end

  describe "the default server" do
    test "is started on first use, stays, and can be stopped" do
      assert {:ok, _audio} = Chatterbex.generate("Hello.")
      pid = Process.whereis(Chatterbex.DefaultServer)
      assert :ok = Chatterbex.await_ready()
      assert {:ok, %{model: :hibari, status: :ready, device: %{actual: :cpu}}} = Chatterbex.info()
      assert Process.whereis(Chatterbex.DefaultServer) == pid
      assert :ok = Chatterbex.stop()
      assert {:ok, _audio} = Chatterbex.generate("Hello again.")
    end
  end

  describe "devices" do
    test "the same call works for every requested device" do
      for device <- ["cpu", :mps, "cuda:1"] do
        server = start_server(device: device)
        assert {:ok, _audio} = Chatterbex.generate(server, "Hello.")
        assert {:ok, %{device: %{actual: :cpu}}} = Chatterbex.info(server: server)
      end

      assert {:ok, %{device: %{requested: :mps, reason: reason}}} =
               Chatterbex.info(server: start_server(device: "mps"))

      assert reason =~ "CPU"
    end

    test "without fallback, an unusable device is an error" do
      server = start_supervised!({Chatterbex, device: "mps", fallback: false})
      assert {:error, %Error{reason: :device_unavailable}} = Chatterbex.generate(server, "Hello.")
    end
  end
end
