defmodule Chatterbex.PoolTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
  import ExUnit.CaptureLog

  alias Chatterbex.{Audio, Client, Error, Pool}
  alias Chatterbex.Pool.Members

  defp start_pool(options) do
    name = :"pool_#{System.unique_integer([:positive])}"
    start_supervised!({Pool, [name: name, model: :fake, isolation: :none] ++ options}, id: name)
    :ok = Chatterbex.await_ready(server: name, timeout: 60_000)
    for member <- members(name), do: :ok = Chatterbex.await_ready(server: member, timeout: 60_000)
    name
  end

  defp members(pool), do: Enum.sort(Members.list(pool))

  # The servers on which requests say "hold". One of them may be about to end.
  defp holding(pool) do
    for member <- members(pool),
        {:ok, %{"held" => n}} when n > 0 <- [Client.call_model(member, "held", %{}, 5_000)],
        do: member
  end

  describe "a pool" do
    test "answers like a server" do
      pool = start_pool(size: 2)
      assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(pool, "abc")
      assert samples == echo("abc")
      chunks = Chatterbex.stream(pool, "One. Two steps:3.")
      assert chunks |> Enum.map(& &1.samples) |> length() > 3
      assert {:error, %Error{reason: :generation_failed}} = Chatterbex.generate(pool, "fail")
      assert call_model(pool, "echo", %{"n" => 1})["arguments"] == %{"n" => 1}
      assert {:ok, info} = Chatterbex.info(server: pool)
      assert %{server: ^pool, status: :ready, queue: %{open: 0, max_queue: 400}, members: [_, _]} = info
      assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]
    end

    test "spreads requests, and keeps their audio apart" do
      pool = start_pool(size: 2, max_batch: 1)
      holds = for n <- 1..2, do: Task.async(fn -> Chatterbex.generate(pool, "hold #{n}") end)
      await(fn -> length(holding(pool)) == 2 end)
      for member <- members(pool), do: call_model(member, "release")

      for {task, n} <- Enum.with_index(holds, 1),
          do: assert({:ok, %{samples: samples}} = Task.await(task)) && assert(samples == echo("hold #{n}"))
    end

    test "passes a full server's requests to others, and refuses only if all are full" do
      pool = start_pool(size: 2, max_batch: 1, max_queue: 1)
      test = self()
      for n <- 1..4, do: spawn_link(fn -> send(test, {:answer, Chatterbex.generate(pool, "hold #{n}")}) end)
      await(fn -> match?({:ok, %{queue: %{open: 4}}}, Chatterbex.info(server: pool)) end)
      assert {:error, %Error{reason: :overloaded, message: message}} = Chatterbex.generate(pool, "one more")
      assert message =~ "all 2 servers of the pool #{inspect(pool)} are full"
      for member <- members(pool), do: call_model(member, "release")
      for _n <- 1..4, do: assert_receive({:answer, {:ok, %Audio{}}}, 10_000)
    end

    test "a caller that dies cancels its work" do
      pool = start_pool(size: 2)
      caller = spawn(fn -> Chatterbex.generate(pool, "hold") end)
      await(fn -> length(holding(pool)) == 1 end)
      Process.exit(caller, :kill)
      await(fn -> holding(pool) == [] end)
      await(fn -> :sys.get_state(pool).requests == %{} and :sys.get_state(pool).monitors == %{} end)
    end

    test "a request whose server dies goes to another one" do
      pool = start_pool(size: 2)
      task = Task.async(fn -> Chatterbex.generate(pool, "hold") end)
      await(fn -> length(holding(pool)) == 1 end)
      [first] = holding(pool)
      Process.exit(first, :kill)
      await(fn -> match?([other] when other != first, holding(pool)) end)
      [second] = holding(pool)
      call_model(second, "release")
      assert {:ok, %Audio{samples: samples}} = Task.await(task)
      assert samples == echo("hold")
    end

    test "time spent on a server that died counts" do
      pool = start_pool(size: 2)
      late = Task.async(fn -> Chatterbex.generate(pool, "hold", timeout: 3_000) end)
      await(fn -> map_size(:sys.get_state(pool).requests) == 1 end)
      [request] = Map.values(:sys.get_state(pool).requests)
      # As if it had been opened a long time ago.
      :sys.replace_state(pool, &put_in(&1.requests[request.ref].opened_at, request.opened_at - 3_000))
      Process.exit(request.member, :kill)
      assert {:error, %Error{reason: :timeout, message: message}} = Task.await(late)
      assert message == "no audio within 3000 ms. Raise :timeout."
    end

    test "a request whose server is stopped goes to another one" do
      pool = start_pool(size: 2)
      task = Task.async(fn -> Chatterbex.generate(pool, "hold") end)
      await(fn -> length(holding(pool)) == 1 end)
      [first] = holding(pool)
      spawn(fn -> Chatterbex.stop(server: first) end)
      await(fn -> match?([other] when other != first, holding(pool)) end)
      for member <- members(pool), do: Client.call_model(member, "release", %{}, 5_000)
      assert {:ok, %Audio{}} = Task.await(task)
    end

    test "a request does not wait for a server whose model is too slow to load" do
      pool = start_pool(size: 1)
      {:ok, slow} = Chatterbex.start_link(model: :fake, isolation: :peer, load_timeout: 1)
      assert {:error, %Error{reason: :timeout}} = Chatterbex.await_ready(server: slow)
      :ok = GenServer.call(pool, {:join, slow})
      for n <- 1..20, do: assert({:ok, %Audio{}} = Chatterbex.generate(pool, "number #{n}"))
    end

    test "a single server: waiting requests are spoken when it is back" do
      pool = start_pool(size: 1)
      task = Task.async(fn -> Chatterbex.generate(pool, "sleep:300 steps:3") end)
      await(fn -> match?({:ok, %{queue: %{running: 1}}}, Chatterbex.info(server: pool)) end)
      [only] = members(pool)
      Process.exit(only, :kill)
      assert {:ok, %Audio{samples: samples}} = Task.await(task, 30_000)
      assert samples == echo("sleep:300 steps:3")
    end

    test "a stream that has sent audio ends with its server, and continues with resume: true" do
      pool = start_pool(size: 2)
      text = "First steps:3. Second steps:20 sleep:20. Third."
      all = fn chunks -> chunks |> Enum.map(& &1.samples) |> IO.iodata_to_binary() end
      expected = all.(Chatterbex.stream(start_fake(), text, seed: 1))
      test = self()

      take = fn options ->
        Task.async(fn ->
          try do
            all.(
              Stream.each(
                Chatterbex.stream(pool, text, [seed: 1] ++ options),
                &send(test, {options, &1.metadata[:piece]})
              )
            )
          rescue
            error -> error
          end
        end)
      end

      for {options, answer} <- [{[resume: true], :whole}, {[], :error}] do
        await(fn -> length(members(pool)) == 2 end)
        for member <- members(pool), do: :ok = Chatterbex.await_ready(server: member, timeout: 30_000)
        task = take.(options)
        for _n <- 1..4, do: assert_receive({^options, 1}, 10_000)

        [busy] =
          for member <- members(pool),
              {:ok, %{queue: %{open: 1}}} <- [Chatterbex.info(server: member)],
              do: member

        Process.exit(busy, :kill)

        case answer do
          :whole -> assert Task.await(task, 30_000) == expected
          :error -> assert %Error{reason: :engine_crashed} = Task.await(task, 30_000)
        end
      end
    end

    test "drains: it finishes its requests, and accepts no more" do
      pool = start_pool(size: 2)
      task = Task.async(fn -> Chatterbex.generate(pool, "hold") end)
      await(fn -> length(holding(pool)) == 1 end)
      [busy] = holding(pool)

      for _again <- 1..2,
          do: assert({:error, %Error{reason: :timeout, details: %{open: 1}}} = Pool.drain(pool, timeout: 50))

      drain = Task.async(fn -> Pool.drain(pool, timeout: 10_000) end)
      await(fn -> :sys.get_state(busy).idle_waiters |> length() == 3 end)
      assert {:error, %Error{reason: :not_running, message: message}} = Chatterbex.generate(pool, "late")
      assert message =~ "has no server now"
      call_model(busy, "release")
      assert {:ok, %Audio{}} = Task.await(task)
      assert :ok = Task.await(drain)
    end

    test "a server that crashes for good does not end requests of others" do
      pool = start_pool(size: 2)
      test = self()

      for n <- 1..20,
          do: spawn_link(fn -> send(test, {n, Chatterbex.generate(pool, "number #{n} steps:5 sleep:10")}) end)

      await(fn -> match?({:ok, %{queue: %{running: n}}} when n > 2, Chatterbex.info(server: pool)) end)
      pool |> members() |> hd() |> Process.exit(:kill)

      for n <- 1..20 do
        assert_receive {^n, {:ok, %Audio{samples: samples}}}, 30_000
        assert samples == echo("number #{n} steps:5 sleep:10")
      end
    end
  end

  describe "servers of other versions" do
    test "are skipped, and this is logged once" do
      stranger = spawn(fn -> Process.sleep(:infinity) end)

      log =
        capture_log(fn ->
          pool = start_pool(size: 1)
          :pg.join(Members.scope(), {:members, pool, 99}, stranger)
          await(fn -> :sys.get_state(pool).strangers == [node()] end)
          for _n <- 1..3, do: send(pool, :tick)
          assert {:ok, _audio} = Chatterbex.generate(pool, "Hello")
        end)

      assert [_before, _after] = String.split(log, "does not use the servers of")
    end

    test "are refused politely" do
      stranger = spawn_link(fn -> answer_as_stranger() end)

      assert {:error, %Error{reason: :not_supported, message: message}} =
               Chatterbex.generate(stranger, "Hello")

      assert message =~ "speaks protocol 99; this node speaks 1. Run the same version on both."
    end

    defp answer_as_stranger do
      receive do
        {:"$gen_call", from, :about} -> GenServer.reply(from, {:ok, %{node: node(), protocol: 99}})
      end

      answer_as_stranger()
    end
  end

  describe "options" do
    test "are checked before anything starts" do
      for {options, said} <- [
            {[size: 1], "a pool needs a name"},
            {[name: :pool, size: -1], "option :size must be"},
            {[name: :pool, devices: ["gpu"]], "option :devices must be a list of devices"},
            {[name: :pool, devices: []], "option :devices must be a list of devices"},
            {[name: :pool, sise: 1], "Did you mean :size?"},
            {[name: :pool, model: :nobody], "there is no model :nobody"}
          ] do
        assert {:error, %Error{message: message}} = Pool.start_link(options)
        assert message =~ said
      end
    end

    test "devices are given to servers in turn" do
      pool = start_pool(size: 3, model: :placed, devices: ["cpu", :mps])
      {:ok, %{members: members}} = Chatterbex.info(server: pool)
      assert members |> Enum.map(& &1.device.requested) |> Enum.sort() == [:cpu, :cpu, :mps]
    end
  end
end
