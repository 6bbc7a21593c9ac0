defmodule Chatterbex.FaultsTest do
  @moduledoc """
  Every kind of fault, one after another, at one isolated server. While each happens, others speak; after each, the next
  request does. Faults of nodes are in cluster_test.exs; a VM that ends, new code and a wrong configuration in
  isolation_test.exs.
  """
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Client, Error}

  @moduletag :faults

  # Where a control group with a memory limit can be made, if anywhere: its hierarchy, and the file of the limit.
  @memory_group Enum.find(
                  [
                    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                    {"/sys/fs/cgroup", "memory.max"}
                  ],
                  {"", ""},
                  fn {root, limit} ->
                    group = Path.join(root, "chatterbex_probe_#{System.pid()}")
                    usable? = File.mkdir(group) == :ok and File.exists?(Path.join(group, limit))
                    File.rmdir(group)
                    usable?
                  end
                )

  setup_all do
    name = :"faults_#{System.unique_integer([:positive])}"
    start_supervised!({Chatterbex, name: name, model: :fake, isolation: :peer, max_queue: 100})
    :ok = Chatterbex.await_ready(server: name, timeout: 60_000)
    %{server: name}
  end

  # `mean` says whether the fault may fail the requests of others, as one that ends the model does. The death of a process
  # must never do that.
  defp fault(server, mean, fault) do
    texts = for n <- 1..3, do: "bystander #{n} #{System.unique_integer()} steps:3 sleep:5"
    bystanders = for text <- texts, do: {text, Task.async(fn -> Chatterbex.generate(server, text) end)}
    result = fault.()

    for {text, task} <- bystanders do
      case Task.await(task, 60_000) do
        {:ok, audio} -> assert audio.samples == echo(text)
        {:error, %Error{} = error} -> assert mean == :mean, Exception.message(error)
      end
    end

    await(fn ->
      case Chatterbex.generate(server, "the next") do
        {:ok, %Audio{samples: samples}} -> samples == echo("the next")
        {:error, %Error{}} when mean == :mean -> false
      end
    end)

    await(fn -> match?({:ok, %{queue: %{open: 0, running: 0}}}, Chatterbex.info(server: server)) end)
    await(fn -> match?(%{calls: calls} when calls == %{}, :sys.get_state(server)) end)
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
    result
  end

  defp signal(server, signal) do
    await(fn ->
      match?(
        {:ok, %{status: :ready, process: %{os_pid: pid}}} when pid != nil,
        Chatterbex.info(server: server)
      )
    end)

    {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
    {_output, 0} = System.cmd("kill", ["-#{signal}", pid])
    :ok
  end

  describe "a Python exception" do
    for {text, reason} <- [
          {"refuse", :invalid_text},
          {"fail", :generation_failed},
          {"fail:timeout", :timeout},
          {"raise", :generation_failed},
          {"lose", :generation_failed},
          {"nan", :generation_failed},
          {"shape", :generation_failed},
          {"unsendable", :generation_failed},
          {"oom", :out_of_memory}
        ] do
      # An exception that escapes a step fails all requests in it.
      mean = if text == "raise", do: :mean, else: :kind

      test "in a request: #{text}", %{server: server} do
        assert {:error, %Error{reason: unquote(reason)}} =
                 fault(server, unquote(mean), fn -> Chatterbex.generate(server, unquote(text)) end)
      end
    end

    test "that breaks the model", %{server: server} do
      assert {:error, %Error{}} = fault(server, :mean, fn -> Chatterbex.generate(server, "broken") end)
    end

    test "that ends the engine", %{server: server} do
      assert {:error, %Error{reason: :engine_crashed}} =
               fault(server, :mean, fn -> Chatterbex.generate(server, "crash") end)
    end

    test "in a function of the model", %{server: server} do
      call = fn function ->
        fault(server, :kind, fn -> Client.call_model(server, function, %{}, 5_000) end)
      end

      assert {:error, %Error{}} = call.("fail")
      assert {:error, %Error{}} = call.("no_such_function")
    end

    for how <- ["fail", "oom", "none", "missing", "crash"] do
      test "while loading: #{how}", %{server: server} do
        fault(server, :kind, fn ->
          {:ok, other} =
            Chatterbex.start_link(model: :fake, isolation: :peer, model_options: %{load: unquote(how)})

          assert {:error, %Error{reason: reason}} = Chatterbex.generate(other, "Hello")
          assert reason in [:model_load_failed, :out_of_memory, :engine_crashed, :not_set_up]
          :ok = Chatterbex.stop(server: other)
        end)
      end
    end
  end

  describe "the model's process" do
    for signal <- ~w(KILL SEGV ABRT BUS TERM) do
      test "gets SIG#{signal} while it speaks", %{server: server} do
        fault(server, :kind, fn -> signal(server, unquote(signal)) end)
      end
    end

    for {name, python} <- [
          {"segmentation fault", ~s|__import__("ctypes").string_at(0)|},
          {"abort", ~s|__import__("os").abort()|},
          {"exit", ~s|__import__("os")._exit(3)|}
        ] do
      test "ends by #{name} inside Python", %{server: server} do
        text = "eval: #{unquote(python)}"

        assert {:error, %Error{reason: :engine_crashed, details: %{text: ^text}}} =
                 fault(server, :kind, fn -> Chatterbex.generate(server, text) end)
      end
    end

    @tag skip:
           if(@memory_group == {"", ""}, do: "this user may not limit the memory of a process", else: false)
    test "is killed by the system, which is out of memory", %{server: server} do
      {root, limit} = @memory_group
      group = Path.join(root, "chatterbex_#{System.pid()}")
      File.mkdir!(group)
      on_exit(fn -> File.rmdir!(group) end)
      File.write!(Path.join(group, limit), "67108864")
      {:ok, %{process: %{os_pid: pid, died: died}}} = Chatterbex.info(server: server)
      File.write!(Path.join(group, "cgroup.procs"), pid)

      # The next process has no limit.
      assert {:ok, %Audio{}} =
               fault(server, :kind, fn ->
                 Chatterbex.generate(server, ~s|eval: len(b"x" * 300_000_000)|)
               end)

      assert {:ok, %{process: %{died: now}}} = Chatterbex.info(server: server)
      assert now == died + 1
    end

    test "is suspended for a while", %{server: server} do
      fault(server, :kind, fn ->
        signal(server, "STOP")
        assert {:error, %Error{reason: :timeout}} = Chatterbex.generate(server, "in vain", timeout: 100)
        signal(server, "CONT")
      end)
    end

    test "is suspended for good", %{server: server} do
      fault(server, :kind, fn ->
        signal(server, "STOP")
        # Sends the heartbeats that a timer would send within half a minute.
        for _n <- 1..7, do: send(:sys.get_state(server).engine, :heartbeat)
      end)
    end

    test "answers heartbeats", %{server: server} do
      fault(server, :kind, fn ->
        %{engine: engine} = :sys.get_state(server)
        for _n <- 1..4, do: send(engine, :heartbeat)
        await(fn -> match?(%{unanswered: 0}, :sys.get_state(engine)) end)
        assert %{engine: ^engine} = :sys.get_state(server)
      end)
    end

    test "is killed in the middle of a stream that resumes", %{server: server} do
      fault(server, :kind, fn ->
        text = "streamed steps:20 sleep:10"
        test = self()

        stream =
          Task.async(fn ->
            server
            |> Chatterbex.stream(text, resume: true)
            |> Enum.map(fn chunk -> send(test, :chunk) && chunk.samples end)
          end)

        for _chunk <- 1..3, do: assert_receive(:chunk, 20_000)
        signal(server, "KILL")
        assert IO.iodata_to_binary(Task.await(stream, 30_000)) == echo(text)
        flush(:chunk)
      end)
    end

    test "is killed in the middle of a stream that does not resume", %{server: server} do
      fault(server, :kind, fn ->
        stream = Chatterbex.stream(server, "streamed steps:200 sleep:10")

        assert %Error{reason: :engine_crashed} =
                 catch_error(
                   Enum.each(stream, fn _chunk ->
                     Process.put(:killed, Process.get(:killed) || signal(server, "KILL"))
                   end)
                 )
      end)
    end

    test "loses its guest process", %{server: server} do
      fault(server, :kind, fn ->
        %{peer: peer} = :sys.get_state(:sys.get_state(server).engine)

        true =
          :peer.call(peer, Process, :exit, [
            :peer.call(peer, Process, :whereis, [Chatterbex.Peer.Guest]),
            :kill
          ])
      end)
    end

    test "loses its engine process in this VM", %{server: server} do
      fault(server, :kind, fn -> Process.exit(:sys.get_state(server).engine, :kill) end)
    end
  end

  describe "a caller" do
    test "dies while it receives audio", %{server: server} do
      fault(server, :kind, fn ->
        {caller, monitor} =
          spawn_monitor(fn ->
            Enum.each(Chatterbex.stream(server, "long steps:500 sleep:5"), fn _ -> exit(:enough) end)
          end)

        assert_receive {:DOWN, ^monitor, :process, ^caller, :enough}, 20_000
      end)
    end

    test "is slow", %{server: server} do
      fault(server, :kind, fn ->
        [first | _rest] =
          server
          |> Chatterbex.stream("One. Two. Three. Four.")
          |> Enum.map(fn chunk -> Process.sleep(50) && chunk end)

        assert first.samples == echo("One.")
      end)
    end

    test "stops reading", %{server: server} do
      fault(server, :kind, fn ->
        listener = spawn(fn -> receive(do: ({:chatterbex, _ref, _message} -> :ok)) end)
        {:ok, _ref} = Chatterbex.stream_to("long steps:100 sleep:5. And on.", listener, server: server)
      end)
    end

    test "raises in its :progress function", %{server: server} do
      fault(server, :kind, fn ->
        assert_raise RuntimeError, fn ->
          Chatterbex.generate(server, "One.\n\nTwo.", progress: fn _told -> raise "mine" end)
        end
      end)
    end

    test "cancels a thousand times", %{server: server} do
      fault(server, :kind, fn ->
        for _n <- 1..10 do
          for(_m <- 1..100, do: elem(Chatterbex.stream_to("hold", self(), server: server), 1))
          |> Enum.each(fn ref ->
            Chatterbex.cancel(ref)
            assert_receive {:chatterbex, ^ref, {:error, %Error{}}}, 10_000
          end)
        end
      end)
    end

    test "has 200,000 other messages", %{server: server} do
      fault(server, :kind, fn ->
        Task.async(fn ->
          for n <- 1..200_000, do: send(self(), {:foreign, n})
          assert {:ok, _audio} = Chatterbex.generate(server, "among many")
          assert Process.info(self(), :message_queue_len) == {:message_queue_len, 200_000}
        end)
        |> Task.await(60_000)
      end)
    end
  end

  describe "the server" do
    test "gets 200,000 meaningless messages", %{server: server} do
      fault(server, :kind, fn -> for n <- 1..200_000, do: send(server, {:foreign, n}) end)
    end

    test "gets events of unknown requests", %{server: server} do
      fault(server, :kind, fn ->
        for event <- ["chunk", "done", "failed", "started", "cancelled", "unheard"],
            do:
              send(
                server,
                {:chatterbex_event, 1, event, %{"samples" => "", "reason" => "x", "message" => "x"}}
              )

        send(server, {:EXIT, self(), {:shutdown, {:peer_down, {:exit_status, 139}}}})
        send(server, {:start_again, make_ref()})
        send(server, {:peer_up, self(), "1"})
      end)
    end

    test "is killed, and started again by its supervisor", %{server: server} do
      fault(server, :mean, fn -> server |> Process.whereis() |> Process.exit(:kill) end)
    end

    test "is full", %{server: server} do
      # Other callers may be refused too.
      fault(server, :mean, fn ->
        others = for _n <- 1..150, do: spawn(fn -> insist(server) end)

        await(fn ->
          match?({:error, %Error{reason: :overloaded}}, Chatterbex.generate(server, "one more", timeout: 50))
        end)

        for other <- others, do: Process.exit(other, :kill)

        await(fn -> open(server) in 0..3 end)
      end)
    end
  end

  # The number of open requests, or an error.
  defp open(server), do: with({:ok, %{queue: %{open: open}}} <- Chatterbex.info(server: server), do: open)

  defp insist(server) do
    with {:error, %Error{reason: :overloaded}} <- Chatterbex.generate(server, "hold"), do: insist(server)
  end

  defp flush(message) do
    receive do
      ^message -> flush(message)
    after
      0 -> :ok
    end
  end
end
