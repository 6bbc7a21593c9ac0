defmodule Chatterbex.ClusterTest do
  # Alone: it makes this VM a node of a cluster. The others are real nodes, on the loopback interface.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Client, Error, Pool}

  unless System.find_executable("epmd"),
    do: @moduletag(skip: "the port mapper of Erlang (epmd) is not installed")

  setup_all do
    unless Node.alive?() do
      {_output, 0} = System.cmd("epmd", ["-daemon"])
      {:ok, _net_kernel} = :net_kernel.start([:"chatterbex_test_#{System.pid()}@127.0.0.1", :longnames])
      on_exit(fn -> :net_kernel.stop() end)
    end

    :ok
  end

  # A node with servers of this pool. The connection over standard input survives a netsplit.
  defp start_node(pool, options) do
    name = :"speech_#{System.unique_integer([:positive])}"

    {:ok, peer, node} =
      :peer.start_link(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        peer_down: :continue,
        args: [~c"-setcookie", Atom.to_charlist(Node.get_cookie())]
      })

    true = Node.connect(node)
    true = :peer.call(peer, :code, :set_path, [:code.get_path()])
    environment = [{:chatterbex, Application.get_all_env(:chatterbex)}, {:logger, level: :none}]
    :ok = :peer.call(peer, Application, :put_all_env, [environment])
    {:ok, _apps} = :peer.call(peer, Application, :ensure_all_started, [:chatterbex])
    :ok = :peer.call(peer, Logger, :configure, [[level: :none]])
    child = {Pool, Keyword.merge([name: pool, model: :fake, isolation: :none], options)}

    {:ok, _pool} =
      :peer.call(peer, DynamicSupervisor, :start_child, [Chatterbex.DefaultServerSupervisor, child], 30_000)

    :ok = :peer.call(peer, Chatterbex, :await_ready, [[server: pool, timeout: 60_000]], 60_000)
    await(fn -> Enum.any?(members(pool), &(node(&1) == node)) end)
    %{peer: peer, node: node, os_pid: :peer.call(peer, System, :pid, [])}
  end

  defp start_pool do
    pool = :"pool_#{System.unique_integer([:positive])}"
    start_supervised!({Pool, name: pool, size: 0, model: :fake})
    pool
  end

  defp members(pool), do: :pg.get_members(Pool.scope(), Pool.group(pool))

  defp on(pool, node), do: for(member <- members(pool), node(member) == node, do: member)

  defp kill(%{os_pid: os_pid, node: node}) do
    {_output, 0} = System.cmd("kill", ["-KILL", os_pid])
    await(fn -> node not in Node.list() end)
  end

  test "a web node without Python of its own speaks with the servers of others" do
    pool = start_pool()
    assert {:error, %Error{reason: :not_running}} = Chatterbex.info(server: pool)
    waiting = Task.async(fn -> Chatterbex.await_ready(server: pool, timeout: 60_000) end)
    start_node(pool, size: 2, isolation: :peer)
    assert :ok = Task.await(waiting, 60_000)
    assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(pool, "over there")
    assert samples == echo("over there")
    assert {:ok, %{members: [_, _], isolation: :peer}} = Chatterbex.info(server: pool)
  end

  test "nodes under load, each killed in turn: every request is answered once, with its own audio" do
    pool = start_pool()
    nodes = for _n <- 1..3, do: start_node(pool, size: 2)
    test = self()
    texts = for n <- 1..150, do: "number #{n} steps:4 sleep:5"

    load =
      Task.async(fn ->
        texts
        |> Task.async_stream(fn text -> send(test, {text, Chatterbex.generate(pool, text)}) end,
          max_concurrency: 30,
          timeout: 120_000
        )
        |> Stream.run()
      end)

    for %{node: node} = killed <- Enum.take(nodes, 2) do
      await(fn ->
        Enum.any?(on(pool, node), &match?({:ok, %{queue: %{running: n}}} when n > 0, Client.info(&1)))
      end)

      kill(killed)
    end

    Task.await(load, 120_000)

    for text <- texts do
      assert_received {^text, {:ok, %Audio{samples: samples}}}
      assert samples == echo(text)
    end

    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
    await(fn -> :sys.get_state(pool).requests == %{} end)
  end

  test "a netsplit: what was there is spoken here, and the other side gives it up" do
    pool = start_pool()
    [one, other] = for _n <- 1..2, do: start_node(pool, size: 1)
    task = Task.async(fn -> Chatterbex.generate(pool, "hold") end)

    holding = fn node ->
      Enum.any?(on(pool, node), &match?({:ok, %{"held" => 1}}, Client.call_model(&1, "held", %{}, 5_000)))
    end

    await(fn -> holding.(one.node) or holding.(other.node) end)
    {there, here} = if holding.(one.node), do: {one, other}, else: {other, one}
    [lost] = on(pool, there.node)
    true = :erlang.disconnect_node(there.node)
    :peer.call(there.peer, :erlang, :disconnect_node, [here.node])
    await(fn -> holding.(here.node) end)
    for member <- on(pool, here.node), do: call_model(member, "release")
    assert {:ok, %Audio{samples: samples}} = Task.await(task, 30_000)
    assert samples == echo("hold")

    await(fn ->
      match?({:ok, %{queue: %{open: 0, running: 0}}}, :peer.call(there.peer, Client, :info, [lost]))
    end)
  end

  test "a node that is drained hands over to the others" do
    pool = start_pool()
    [one, other] = for _n <- 1..2, do: start_node(pool, size: 1)
    assert :ok = Pool.drain({pool, one.node}, timeout: 10_000)
    await(fn -> on(pool, one.node) == [] end)
    for n <- 1..5, do: assert({:ok, %Audio{}} = Chatterbex.generate(pool, "after #{n}"))
    [member] = on(pool, other.node)
    assert {:ok, %{"spoken" => spoken}} = Client.call_model(member, "spoken", %{}, 5_000)
    assert Enum.sort(spoken) == for(n <- 1..5, do: "after #{n}")
  end
end
