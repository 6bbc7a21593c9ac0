defmodule Chatterbex.IsolationTest do
  @moduledoc """
  Models in processes of their own, which die in every way that there is.
  """
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
  import ExUnit.CaptureLog

  alias Chatterbex.{Audio, Error}
  alias Chatterbex.Peer.CommandLine

  @moduletag :tmp_dir

  defp start_isolated(options \\ []), do: start_fake([isolation: :peer] ++ options)

  defp os_pid(server) do
    await(fn ->
      match?({:ok, %{process: %{os_pid: pid}}} when is_binary(pid), Chatterbex.info(server: server))
    end)

    {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
    pid
  end

  defp kill(server, signal \\ "KILL") do
    pid = os_pid(server)
    {_output, 0} = System.cmd("kill", ["-#{signal}", pid])
    pid
  end

  # Kills the guest's process before it has sent anything.
  defp kill_boot(server, n) do
    await(fn -> booting(server) != nil end)
    {_output, 0} = System.cmd("kill", ["-KILL", "#{booting(server)}"])
    await(fn -> match?({:ok, %{process: %{died: died}}} when died >= n, Chatterbex.info(server: server)) end)
  end

  defp kill_boots(server) do
    with pid when pid != nil <- booting(server),
         do: System.cmd("kill", ["-KILL", "#{pid}"], stderr_to_stdout: true)

    kill_boots(server)
  end

  defp booting(server) do
    with %{engine: engine} when is_pid(engine) <- :sys.get_state(server),
         %{peer: peer} when is_pid(peer) <- :sys.get_state(engine),
         {:links, links} <- Process.info(peer, :links),
         port when port != nil <- Enum.find(links, &is_port/1),
         {:os_pid, pid} <- Port.info(port, :os_pid) do
      pid
    else
      _none -> nil
    end
  catch
    :exit, _gone -> nil
  end

  defp alive?(os_pid), do: match?({_output, 0}, System.cmd("kill", ["-0", os_pid], stderr_to_stdout: true))

  describe "an isolated model" do
    test "runs in another process, and answers like one in this VM" do
      isolated = start_isolated()
      here = start_fake()

      assert {:ok, %{isolation: :peer, process: %{os_pid: pid, died: 0}} = info} =
               Chatterbex.info(server: isolated)

      assert pid != System.pid()
      assert {:ok, %{isolation: :none, process: %{os_pid: nil}} = other} = Chatterbex.info(server: here)
      assert Map.keys(info) == Map.keys(other)
      assert info.device == other.device

      for text <- ["abc", "in steps steps:5", "fail", "oom", "refuse", "unsendable", "big:100000 steps:3"] do
        answers =
          for server <- [isolated, here] do
            case Chatterbex.generate(server, text, seed: 3) do
              {:ok, audio} -> {audio.samples, Map.drop(audio.metadata, [:thread, :generation_ms, :rtf])}
              {:error, error} -> {error.reason, error.message, Map.delete(error.details, :traceback)}
            end
          end

        assert [same, same] = answers
      end

      chunks =
        for server <- [isolated, here],
            do: Enum.map(Chatterbex.stream(server, "One. Two steps:4."), & &1.samples)

      assert [same, same] = chunks

      assert call_model(isolated, "echo", %{"bytes" => {:bytes, <<255, 0>>}})["arguments"]["bytes"] ==
               <<255, 0>>
    end

    test "speaks with the built-in voice" do
      server = start_server(isolation: :peer)
      here = start_server()
      assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, "Hello, world!", seed: 1)
      assert {:ok, %Audio{samples: ^samples}} = Chatterbex.generate(here, "Hello, world!", seed: 1)
    end

    test "is cancelled, and its callers may die" do
      server = start_isolated()
      caller = spawn(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)
      Process.exit(caller, :kill)
      await_held(server, 0)
      assert {:error, %Error{reason: :timeout}} = Chatterbex.generate(server, "hold", timeout: 30)
      await_idle(server)
      await_held(server, 0)
    end

    test "ends with its server, however that ends" do
      for stop <- [&Chatterbex.stop(server: &1), &Process.exit(&1, :kill)] do
        Process.flag(:trap_exit, true)
        {:ok, server} = Chatterbex.start_link(model: :fake, isolation: :peer)
        :ok = Chatterbex.await_ready(server: server)
        pid = os_pid(server)
        assert alive?(pid)
        stop.(server)
        await(fn -> not alive?(pid) end)
      end
    end

    test "ends with its VM, however that ends", %{tmp_dir: dir} do
      for ending <- ["System.halt(3)", "System.stop(3); Process.sleep(:infinity)", "kill"] do
        code = """
        {:ok, _apps} = Application.ensure_all_started(:chatterbex)
        Logger.configure(level: :none)
        {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
        :ok = Chatterbex.await_ready(server: server)
        spawn(fn -> Chatterbex.generate(server, String.duplicate("Number one. ", 500)) end)
        {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
        IO.puts("guest " <> pid)
        #{if ending == "kill", do: ~s|System.cmd("kill", ["-KILL", System.pid()])|, else: ending}
        """

        # Into a file: a pipe would stay open as long as the guest lives, and this would wait for it.
        into_file = ["sh", "-c", ~S(exec "$@" >said 2>&1), "sh"]
        elixir(code, cd: dir, wrapper: into_file ++ ["timeout", "--signal=KILL", "60"])
        said = dir |> Path.join("said") |> File.read!()
        assert [_all, pid] = Regex.run(~r/guest (\d+)/, said), said
        await(fn -> not alive?(pid) end)
      end
    end

    test "survives new code, and a wrong configuration", %{tmp_dir: dir} do
      code = ~S"""
      {:ok, _apps} = Application.ensure_all_started(:chatterbex)
      Logger.configure(level: :none)
      {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
      :ok = Chatterbex.await_ready(server: server)
      task = Task.async(fn -> Chatterbex.generate(server, String.duplicate("Number one. ", 100)) end)

      for module <- [Chatterbex.Server, Chatterbex.Server.Queue, Chatterbex.Server.Crashes, Chatterbex.Server.Engine,
                     Chatterbex.Peer, Chatterbex.Peer.Frame], _twice <- 1..2 do
        :code.purge(module)
        {:module, ^module} = :code.load_file(module)
      end

      {:ok, _audio} = Task.await(task, 60_000)
      Application.put_env(:chatterbex, :isolation, :nonsense)
      {:error, error} = Chatterbex.start_link(model: :hibari)
      IO.puts(error.message)
      {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
      {_output, 0} = System.cmd("kill", ["-KILL", pid])
      {:ok, _audio} = Chatterbex.generate(server, "And on.")
      IO.puts("it speaks")
      """

      {output, status} = elixir(code, cd: dir, wrapper: ["timeout", "--signal=KILL", "120"])
      assert status == 0, output
      assert output =~ "option :isolation must be one of :none, :peer, got :nonsense"
      assert output =~ "it speaks"
    end

    @tag skip:
           if(System.find_executable("epmd"),
             do: false,
             else: "the port mapper of Erlang (epmd) is not installed"
           )
    test "starts even if environment variables name this VM", %{tmp_dir: dir} do
      assert [{~c"ERL_FLAGS", flags}] =
               CommandLine.flags(%{"ERL_FLAGS" => "+S 2 -name a@b -setcookie c -hidden"})

      assert flags |> to_string() |> String.split() == ["+S", "2", "-hidden"]

      code = ~S"""
      {:ok, _apps} = Application.ensure_all_started(:chatterbex)
      {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
      {:ok, _audio} = Chatterbex.generate(server, "Hello.")
      IO.puts("it speaks on #{node()}")
      """

      name = "isolation_#{System.unique_integer([:positive])}_#{System.pid()}"
      {output, status} = elixir(code, cd: dir, env: [{"ERL_FLAGS", "-name #{name}@127.0.0.1"}])
      assert status == 0, output
      assert output =~ "it speaks on #{name}@127.0.0.1"
    end

    @tag skip:
           (case System.cmd("sh", ["-c", "unshare -n true"], stderr_to_stdout: true) do
              {_output, 0} -> false
              {_output, _status} -> "this user may not make a network namespace"
            end)
    test "reports a missing loopback interface", %{tmp_dir: dir} do
      code = ~S"""
      {:ok, _apps} = Application.ensure_all_started(:chatterbex)
      Logger.configure(level: :none)
      {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
      {:error, error} = Chatterbex.generate(server, "Hello.")
      IO.puts(error.message)
      """

      {output, status} = elixir(code, cd: dir, wrapper: ["unshare", "-n", "timeout", "--signal=KILL", "50"])
      assert status == 0, output
      assert output =~ "keeps dying while it loads the model"
      assert output =~ "it cannot reach this VM on the loopback interface"
    end

    test "logs into the log of this VM" do
      server = start_isolated()

      log =
        capture_log(fn ->
          assert {:ok, _audio} = Chatterbex.generate(server, "log:written warn:warned")
          # The line comes over the same socket as the answers.
          assert {:ok, _audio} = Chatterbex.generate(server, "again")
          :sys.get_state(:sys.get_state(server).engine)
        end)

      assert log =~ "written"
    end

    test "has its own memory, which can be limited" do
      server = start_isolated(memory_limit: 1_000_000_000)
      assert {:error, %Error{reason: :out_of_memory}} = Chatterbex.generate(server, "big:500000000")
      assert {:ok, %Audio{}} = Chatterbex.generate(server, "and on")
      assert {:ok, %{process: %{died: 0}}} = Chatterbex.info(server: server)
    end

    test "has no limit without isolation" do
      assert {:error, %Error{reason: :invalid_option, message: message}} =
               Chatterbex.start_link(model: :fake, memory_limit: 1_000_000_000)

      assert message =~ "needs isolation: :peer"

      assert {:error, %Error{reason: :not_supported, message: message}} =
               CommandLine.new(1_000_000_000, {:unix, :darwin})

      assert message =~ "this is darwin"
    end
  end

  describe "the process dies" do
    test "while idle: the next request speaks" do
      server = start_isolated()

      for signal <- ["KILL", "SEGV", "ABRT", "TERM"] do
        pid = kill(server, signal)
        await(fn -> not alive?(pid) end)
        assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(server, "after #{signal}")
        assert samples == echo("after #{signal}")
      end

      assert {:ok, %{process: %{died: 4}, status: :ready}} = Chatterbex.info(server: server)
    end

    test "while loading: waiting callers are answered" do
      {:ok, server} = Chatterbex.start_link(model: :fake, isolation: :peer)
      tasks = for n <- 1..5, do: Task.async(fn -> Chatterbex.generate(server, "early #{n}") end)
      kill(server)

      for {task, n} <- Enum.with_index(tasks, 1),
          do:
            assert({:ok, %{samples: samples}} = Task.await(task, 30_000)) &&
              assert(samples == echo("early #{n}"))

      :ok = Chatterbex.stop(server: server)
    end

    # Crashes of the model itself count at most three times.
    test "while it boots, killed from outside: waiting callers are answered" do
      {:ok, server} = Chatterbex.start_link(model: :fake, isolation: :peer)
      early = Task.async(fn -> Chatterbex.generate(server, "early") end)
      for n <- 1..3, do: kill_boot(server, n)
      assert {:ok, %Audio{samples: samples}} = Task.await(early, 60_000)
      assert samples == echo("early")
      :ok = Chatterbex.stop(server: server)
    end

    test "at every load, killed from outside: the load timeout ends it" do
      {:ok, server} = Chatterbex.start_link(model: :fake, isolation: :peer, load_timeout: 2_000)
      impatient = Task.async(fn -> Chatterbex.generate(server, "impatient", timeout: 1_000) end)
      early = Task.async(fn -> Chatterbex.generate(server, "early") end)
      spawn_link(fn -> kill_boots(server) end)
      assert {:error, %Error{reason: :timeout, message: message}} = Task.await(impatient, 60_000)

      assert message =~
               ~r/waiting for the model, whose process died (once|\d+ times, the last time) by SIGKILL/

      assert {:error, %Error{reason: :engine_crashed, message: message}} = Task.await(early, 60_000)

      assert message =~
               ~r/was not ready within 2000 ms: its process died \d+ times, the last time by SIGKILL \(is this mach/

      assert {:ok, %{status: :failed}} = Chatterbex.info(server: server)
      :ok = Chatterbex.stop(server: server)
    end

    test "while it speaks: all callers get their own audio" do
      server = start_isolated()
      texts = for n <- 1..12, do: "number #{n} steps:10 sleep:20"
      tasks = for text <- texts, do: {text, Task.async(fn -> Chatterbex.generate(server, text) end)}
      await(fn -> match?({:ok, %{queue: %{running: 4}}}, Chatterbex.info(server: server)) end)
      kill(server)

      for {text, task} <- tasks do
        assert {:ok, %Audio{samples: samples}} = Task.await(task, 60_000)
        assert samples == echo(text)
      end

      await_idle(server)
    end

    test "while it speaks a long text: all pieces arrive, in order" do
      server = start_isolated(max_batch: 1)
      text = Enum.map_join(1..6, "\n\n", &"Paragraph #{&1} sleep:50.")
      expected = Chatterbex.generate(start_fake(), text)
      test = self()

      task =
        Task.async(fn -> Chatterbex.generate(server, text, progress: &send(test, {:told, &1.pieces})) end)

      assert_receive {:told, 2}, 10_000
      kill(server)
      assert {:ok, audio} = Task.await(task, 30_000)
      {:ok, expected} = expected
      assert audio.samples == expected.samples
    end

    test "a stream that has sent audio ends with an error, and others continue" do
      server = start_isolated()
      # Each of its steps is a chunk, and the second sentence never ends.
      stream = Chatterbex.stream(server, "One steps:2. Please hold.")
      test = self()

      heard =
        Task.async(fn ->
          try do
            Enum.each(stream, &send(test, {:heard, &1.metadata[:text]}))
          rescue
            error -> error
          end
        end)

      assert_receive {:heard, _text}, 10_000
      unheard = Task.async(fn -> Enum.map(Chatterbex.stream(server, "unheard sleep:300"), & &1.samples) end)
      await(fn -> match?({:ok, %{queue: %{running: 2}}}, Chatterbex.info(server: server)) end)
      kill(server)
      assert %Error{reason: :engine_crashed, message: message} = Task.await(heard, 30_000)

      assert message =~
               "died by SIGKILL while this stream was being spoken. Streams with resume: true continue."

      assert IO.iodata_to_binary(Task.await(unheard, 30_000)) == echo("unheard sleep:300")
    end

    test "a stream with resume: true continues where it was" do
      server = start_isolated()
      text = "The first sentence steps:3. The second one is longer steps:20 sleep:30. The third."
      all = fn chunks -> chunks |> Enum.map(& &1.samples) |> IO.iodata_to_binary() end
      expected = all.(Chatterbex.stream(start_fake(), text, seed: 5))
      test = self()

      taker =
        Task.async(fn ->
          server
          |> Chatterbex.stream(text, seed: 5, resume: true)
          |> Enum.map(fn chunk ->
            send(test, {:chunk, chunk.metadata[:piece]})
            chunk
          end)
        end)

      for _chunk <- 1..5, do: assert_receive({:chunk, 1}, 10_000)
      kill(server)
      assert all.(Task.await(taker, 30_000)) == expected
      assert {:ok, %{process: %{died: 1}}} = Chatterbex.info(server: server)
    end

    test "a call to the model is repeated", %{tmp_dir: dir} do
      server = start_isolated()
      # The call waits for this step, which never ends in the first process.
      once = Path.join(dir, "once")

      first =
        ~s|(lambda p: __import__("os").path.exists(p) or (open(p, "w"), __import__("time").sleep(600)))("#{once}")|

      speaking = Task.async(fn -> Chatterbex.generate(server, "eval: #{first}") end)
      await(fn -> File.exists?(once) end)
      call = Task.async(fn -> Chatterbex.Client.call_model(server, "echo", %{"n" => 1}, 30_000) end)
      await(fn -> map_size(:sys.get_state(server).calls) == 1 end)
      kill(server)
      assert {:ok, %{"arguments" => %{"n" => 1}}} = Task.await(call, 30_000)
      assert {:ok, %Audio{}} = Task.await(speaking, 30_000)
      assert {:ok, %{process: %{died: 1}}} = Chatterbex.info(server: server)
    end
  end

  describe "a text that kills its process" do
    @crashes [
      {"SIGSEGV", ~s|__import__("ctypes").string_at(0)|},
      {"SIGABRT", ~s|__import__("os").abort()|},
      {"exit status 7", ~s|__import__("os")._exit(7)|}
    ]

    test "is rejected by name the second time, and all others are spoken" do
      server = start_isolated()

      for {how, python} <- @crashes do
        text = "eval: #{python}"

        others =
          for n <- 1..6,
              do: {"innocent #{n}", Task.async(fn -> Chatterbex.generate(server, "innocent #{n}") end)}

        {:ok, %{process: %{died: before}}} = Chatterbex.info(server: server)
        assert {:error, %Error{reason: :engine_crashed} = error} = Chatterbex.generate(server, text)
        assert error.details == %{text: text, deaths: [how, how]}

        assert error.message =~
                 "will not be spoken: it ended the model's process 2 times, the last time by #{how}"

        for {innocent, task} <- others do
          assert {:ok, %Audio{samples: samples}} = Task.await(task, 30_000)
          assert samples == echo(innocent)
        end

        assert {:ok, %{process: %{died: died}}} = Chatterbex.info(server: server)
        assert died == before + 2

        # It is known now.
        assert {:error, %Error{reason: :engine_crashed, details: %{text: ^text}}} =
                 Chatterbex.generate(server, text)

        assert {:ok, %{process: %{died: ^died}}} = Chatterbex.info(server: server)
        assert {:ok, %Audio{}} = Chatterbex.generate(server, "and on")
      end
    end

    test "is found among the texts in its batch" do
      server = start_isolated()
      innocent = for n <- 1..3, do: "innocent #{n} steps:20 sleep:50"
      tasks = for text <- innocent, do: Task.async(fn -> Chatterbex.generate(server, text) end)
      await(fn -> match?({:ok, %{queue: %{running: 3}}}, Chatterbex.info(server: server)) end)
      text = ~s|eval: __import__("os").abort()|

      assert {:error, %Error{reason: :engine_crashed, details: %{text: ^text}}} =
               Chatterbex.generate(server, text)

      for {text, task} <- Enum.zip(innocent, tasks) do
        assert {:ok, %Audio{samples: samples}} = Task.await(task, 30_000)
        assert samples == echo(text)
      end

      assert {:ok, %{process: %{died: 2}}} = Chatterbex.info(server: server)
    end

    test "a model that cannot be loaded without a crash is given up" do
      {:ok, server} = Chatterbex.start_link(model: :fake, isolation: :peer, model_options: %{load: "abort"})

      assert {:error, %Error{reason: :engine_crashed, message: message}} =
               Chatterbex.generate(server, "Hello")

      assert message =~ "keeps dying while it loads the model: it died 3 times, the last time by SIGABRT"
      assert {:ok, %{status: :failed, process: %{died: 3}}} = Chatterbex.info(server: server)
      :ok = Chatterbex.stop(server: server)
    end
  end
end
