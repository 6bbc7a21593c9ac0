defmodule Chatterbex.IdleTest do
  # Not async: it keeps the runtime from answering, so that a model keeps loading as long as a test needs.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp, except: [start_fake: 0, start_fake: 1]
  import ExUnit.CaptureLog

  alias Chatterbex.{Audio, Error}

  @hour 3_600_000
  @unload [:chatterbex, :model, :unload]
  @load [:chatterbex, :model, :load, :start]

  setup do
    test = self()
    id = make_ref()

    :telemetry.attach_many(
      id,
      [@unload, @load],
      fn event, measurements, metadata, _config -> send(test, {:event, event, measurements, metadata}) end,
      nil
    )

    on_exit(fn -> :telemetry.detach(id) end)
  end

  # A test that fails ends in seconds.
  defp start_fake(options), do: Chatterbex.TestHelp.start_fake([timeout: 10_000] ++ options)

  # Makes the server believe that it was idle for an hour, and fires its timer.
  defp let_an_hour_pass(server) do
    %{load: %{ref: load}} = :sys.replace_state(server, &%{&1 | used_at: &1.used_at - @hour})
    send(server, {:timeout, {:idle, load}})
  end

  defp unload(server) do
    let_an_hour_pass(server)
    assert_receive {:event, @unload, _measurements, %{server: ^server}}, 5_000
  end

  defp info(server) do
    assert {:ok, info} = Chatterbex.info(server: server)
    info
  end

  defp model_id(server), do: :sys.get_state(server).model_id

  defp loaded?(model_id) do
    command = %{"op" => "info", "model_id" => model_id}
    match?({:ok, _info}, Chatterbex.Runtime.ask(command, 5_000))
  end

  # Until resume_loading/0, every model waits for Python.
  defp suspend_loading do
    :ok = :sys.suspend(Chatterbex.Runtime)
    on_exit(fn -> :sys.resume(Chatterbex.Runtime) end)
  end

  defp resume_loading, do: :ok = :sys.resume(Chatterbex.Runtime)

  defp spoken(server, text) do
    assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, text)
    assert samples == echo(text)
  end

  describe "a model with nothing to do" do
    test "is unloaded after the idle time, but not while a request is open" do
      server = start_fake(idle: 1)
      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)
      assert %{status: :ready, device: device} = info(server)
      assert model_id = model_id(server)
      assert loaded?(model_id)
      # The memory of a model that reports it.
      :sys.replace_state(server, &put_in(&1.loaded["memory"], %{"t3" => 1}))
      assert info(server).memory == %{t3: 1}
      assert %{"released" => 1} = call_model(server, "release")
      assert {:ok, %Audio{}} = Task.await(held)

      assert_receive {:event, @unload, %{system_time: _time},
                      %{server: ^server, model: :fake, device: :auto, reason: :idle}},
                     5_000

      await(fn -> info(server).status == :idle end)
      refute loaded?(model_id)
      assert %{device: ^device, error: nil, memory: memory, queue: %{open: 0, running: 0}} = info(server)
      assert memory == %{}
      assert device.actual == :cpu
    end

    test "is unloaded even if it was never used" do
      server = start_fake(idle: 1)
      assert_receive {:event, @unload, _measurements, %{server: ^server, reason: :idle}}, 5_000
    end

    test "is unloaded one idle time after its last request" do
      server = start_fake(idle: 200)
      spoken(server, "the last")
      assert_receive {:event, @unload, _measurements, %{server: ^server, reason: :idle}}, 5_000
    end

    test "stays if there was a request or a call within the idle time" do
      server = start_fake(idle: @hour)

      for use <- [&spoken(&1, "just now"), &call_model(&1, "echo")] do
        :sys.replace_state(server, &%{&1 | used_at: &1.used_at - @hour})
        use.(server)
        # Its release is a message too, and comes first.
        send(server, {:timeout, {:idle, :sys.get_state(server).load.ref}})
        assert info(server).status == :ready
      end
    end

    test "stays while a stream is open, however slowly it is read" do
      server = start_fake(idle: @hour)
      test = self()

      listener =
        Task.async(fn ->
          for chunk <- Chatterbex.stream(server, "One. Two steps:3.") do
            send(test, :chunk)
            receive(do: (:go_on -> chunk.samples))
          end
        end)

      assert_receive :chunk, 5_000
      await(fn -> info(server).queue.running == 0 end)
      let_an_hour_pass(server)
      assert %{status: :ready, queue: %{open: 1}} = info(server)
      for _more <- 1..10, do: send(listener.pid, :go_on)
      assert listener |> Task.await() |> length() > 1
      await(fn -> info(server).queue.open == 0 end)
      unload(server)
      assert info(server).status == :idle
    end

    test "stays while a call is open" do
      server = start_fake(idle: @hour)
      # The call and the timer are in the mailbox before anything can answer the call.
      :ok = :sys.suspend(server)
      call = :gen_server.send_request(server, {:call, "echo", %{"n" => 1}, 5_000})
      let_an_hour_pass(server)
      :ok = :sys.resume(server)
      assert {:reply, {:ok, %{"arguments" => %{"n" => 1}}}} = :gen_server.wait_response(call, 5_000)
      assert info(server).status == :ready
    end

    test "that crashes has failed, and is not idle" do
      server = start_fake(idle: @hour)
      assert {:error, %Error{}} = Chatterbex.generate(server, "broken")
      assert info(server).status == :failed
      let_an_hour_pass(server)
      assert info(server).status == :failed
    end

    test "stays for ever by default" do
      assert {:ok, %{idle: :infinity}} = Chatterbex.Options.validate(:server, [])
      assert {:error, %Error{reason: :invalid_option}} = Chatterbex.start_link(model: :fake, idle: 0)
      assert info(start_fake(idle: :infinity)).status == :ready
    end

    test "is unloaded with the built-in voice, too" do
      server = start_server(idle: @hour)
      assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, "Hello.", seed: 1)
      unload(server)
      assert %{status: :idle, device: %{actual: :cpu}} = info(server)
      assert {:ok, %Audio{samples: ^samples}} = Chatterbex.generate(server, "Hello.", seed: 1)
    end
  end

  describe "an idle model is loaded again by" do
    setup do
      server = start_fake(idle: @hour)
      unload(server)
      %{server: server}
    end

    test "a request, and is unloaded again later", %{server: server} do
      spoken(server, "again")
      assert info(server).status == :ready
      unload(server)
      spoken(server, "and again")
      assert Process.info(Process.whereis(Chatterbex.Runtime), :monitors) |> monitors_of(server) == 1
    end

    test "a stream", %{server: server} do
      assert server |> Chatterbex.stream("again") |> Enum.map_join(& &1.samples) == echo("again")
    end

    test "a call to a function of the model, as by Chatterbex.Voice.clone/2", %{server: server} do
      assert %{"arguments" => %{"n" => 1}} = call_model(server, "echo", %{"n" => 1})
    end

    test "await_ready/1", %{server: server} do
      assert :ok = Chatterbex.await_ready(server: server, timeout: 5_000)
      assert info(server).status == :ready
    end

    test "nothing else", %{server: server} do
      assert {:ok, _about} = Chatterbex.Client.about(server, 5_000)
      assert {:error, %Error{reason: :invalid_text}} = Chatterbex.generate(server, "")
      assert info(server).status == :idle
    end

    defp monitors_of({:monitors, monitors}, server), do: Enum.count(monitors, &(&1 == {:process, server}))
  end

  describe "while an idle model is loaded again" do
    test "callers wait, with the same limit as for the first load, and it is loaded once" do
      server = start_fake(idle: @hour, max_queue: 3)
      assert_receive {:event, @load, _measurements, %{server: ^server}}
      unload(server)
      suspend_loading()

      texts = ["one", "two", "three"]
      tasks = for text <- texts, do: Task.async(fn -> Chatterbex.generate(server, text) end)
      ready = Task.async(fn -> Chatterbex.await_ready(server: server, timeout: 30_000) end)
      call = Task.async(fn -> call_model(server, "echo") end)
      await(fn -> info(server).queue.open == 3 end)
      assert %{status: :loading, device: %{actual: :cpu}} = info(server)

      assert {:error, %Error{reason: :overloaded, details: %{open: 3, limit: 3}}} =
               Chatterbex.generate(server, "four")

      await(fn -> map_size(:sys.get_state(server).calls) == 1 end)
      let_an_hour_pass(server)
      assert info(server).status == :loading

      resume_loading()
      samples = for {:ok, audio} <- Task.await_many(tasks), do: audio.samples
      assert samples == Enum.map(texts, &echo/1)
      assert :ok = Task.await(ready)
      assert %{"arguments" => %{}} = Task.await(call)
      assert_receive {:event, @load, _measurements, %{server: ^server}}
      refute_received {:event, @load, _measurements, %{server: ^server}}
      refute_received {:event, @unload, _measurements, %{server: ^server}}
    end

    test "the request's timeout runs" do
      server = start_fake(idle: @hour)
      unload(server)
      suspend_loading()

      assert {:error, %Error{reason: :timeout, message: message}} =
               Chatterbex.generate(server, "late", timeout: 50)

      assert message =~ "the request was still waiting for its turn"
      resume_loading()
      spoken(server, "in time")
    end

    test "the load timeout runs too, and waiting callers get its error" do
      server = start_fake(idle: @hour)
      unload(server)
      :sys.replace_state(server, &put_in(&1.options.load_timeout, 50))
      suspend_loading()

      assert {:error, %Error{reason: :timeout, message: message}} = Chatterbex.generate(server, "never")
      assert message =~ "was not ready within 50 ms. Raise :load_timeout."
      assert info(server).status == :failed
    end

    test "a failed load is an error for all waiting callers, and the next request tries again" do
      server = start_fake(idle: @hour)
      unload(server)
      :sys.replace_state(server, &put_in(&1.options.model_options, %{load: "fail"}))
      suspend_loading()
      waiting = Task.async(fn -> Chatterbex.await_ready(server: server, timeout: 30_000) end)
      speaking = Task.async(fn -> Chatterbex.generate(server, "never") end)
      await(fn -> match?(%{queue: %{open: 1}}, info(server)) end)

      await(fn -> length(:sys.get_state(server).ready_waiters) == 1 end)

      log =
        capture_log(fn ->
          resume_loading()

          for task <- [waiting, speaking],
              do: assert({:error, %Error{reason: :model_load_failed}} = Task.await(task))
        end)

      assert log =~ "has no model:"
      assert %{status: :failed, error: %Error{reason: :model_load_failed}} = info(server)
      :sys.replace_state(server, &put_in(&1.options.model_options, %{}))
      await(fn -> match?({:ok, _audio}, Chatterbex.generate(server, "again")) end)
      assert info(server).status == :ready
    end
  end

  describe "the idle time ends at the moment of a request, which is spoken:" do
    test "the model is unloaded just before it" do
      server = start_fake(idle: @hour)
      :ok = :sys.suspend(server)
      let_an_hour_pass(server)
      speaking = Task.async(fn -> Chatterbex.generate(server, "hello") end)
      await_messages(server, 2)
      :ok = :sys.resume(server)
      assert {:ok, %Audio{samples: samples}} = Task.await(speaking)
      assert samples == echo("hello")
      assert_received {:event, @unload, _measurements, %{server: ^server}}
    end

    test "the request is there just before" do
      server = start_fake(idle: @hour)
      settings = %{timeout: 5_000, deadline: nil, priority: :normal, options: %{}}
      pieces = [%{number: 0, text: "hello", stream: false, options: %{}}]
      :ok = :sys.suspend(server)
      assert {:ok, ref} = Chatterbex.Client.open(server, settings, pieces)
      let_an_hour_pass(server)
      :ok = :sys.resume(server)
      assert {:done, 0, %Audio{samples: samples}} = Chatterbex.Client.next(server, ref)
      assert samples == echo("hello")
      assert :ok = Chatterbex.Client.release(server, ref)
      refute_received {:event, @unload, _measurements, %{server: ^server}}
    end

    test "the timer of an unloaded model does not unload the next one" do
      server = start_fake(idle: @hour)
      %{load: %{ref: gone}} = :sys.get_state(server)
      unload(server)
      spoken(server, "hello")
      :sys.replace_state(server, &%{&1 | used_at: &1.used_at - @hour})
      send(server, {:timeout, {:idle, gone}})
      assert info(server).status == :ready
    end

    defp await_messages(process, n),
      do: await(fn -> match?({_key, len} when len >= n, Process.info(process, :message_queue_len)) end)
  end

  describe "stopping a server" do
    test "whose model is idle" do
      server = start_idle()
      assert :ok = Chatterbex.stop(server: server)
      refute Process.alive?(server)
    end

    test "while its model is loaded again" do
      server = start_idle()
      suspend_loading()
      speaking = Task.async(fn -> Chatterbex.generate(server, "never") end)
      await(fn -> info(server).queue.open == 1 end)
      task = :sys.get_state(server).load.task
      monitor = Process.monitor(task)
      assert :ok = Chatterbex.stop(server: server)
      assert {:error, %Error{reason: :cancelled}} = Task.await(speaking)
      assert_receive {:DOWN, ^monitor, :process, ^task, :killed}, 5_000
    end

    test "that reloaded its model frees the memory, however it ends" do
      for stop <- [&Chatterbex.stop(server: &1), &Process.exit(&1, :kill)] do
        server = start_idle()
        spoken(server, "again")
        model_id = model_id(server)
        assert loaded?(model_id)
        Process.unlink(server)
        stop.(server)
        await(fn -> not loaded?(model_id) end)
      end
    end

    defp start_idle do
      {:ok, server} = Chatterbex.start_link(model: :fake, idle: @hour, timeout: 10_000)
      assert :ok = Chatterbex.await_ready(server: server, timeout: 60_000)
      unload(server)
      server
    end
  end

  describe "an isolated model" do
    test "ends its process, and gets a new one" do
      server = start_fake(isolation: :peer, idle: @hour)
      assert %{process: %{os_pid: first}} = info(server)
      unload(server)
      assert %{status: :idle, process: %{os_pid: nil, died: 0}} = info(server)
      await(fn -> match?({_out, 1}, System.cmd("kill", ["-0", first], stderr_to_stdout: true)) end)
      spoken(server, "again")
      assert %{status: :ready, process: %{os_pid: second, died: 0}} = info(server)
      assert is_binary(second) and second != first
    end
  end
end
