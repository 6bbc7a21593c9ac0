defmodule Chatterbex.ClusterTest do
  # Not async: it makes this VM a node of a cluster. The others are real nodes, on the loopback interface.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Client, Error, Pool}
  alias Chatterbex.Pool.Members

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

  defp members(pool), do: Members.list(pool)

  defp on(pool, node), do: for(member <- members(pool), node(member) == node, do: member)

  defp kill(%{os_pid: os_pid, node: node}) do
    {_output, 0} = System.cmd("kill", ["-KILL", os_pid])
    await(fn -> node not in Node.list() end)
  end

  # Cuts a node off from this one and from the others, until they are to find each other again. With another cookie no
  # message makes a new connection. Nodes also report a lost connection to each other, and end theirs to whoever reports
  # one that they still have (`global`): here each notices its own loss first.
  defp cut_off(node, others) do
    cookies(node, others, :cut_off)
    everywhere([node | others], :sys, :suspend, [:global_name_server])
    everywhere(others, :erlang, :disconnect_node, [node.node])
    await(fn -> node.node not in Node.list() and :peer.call(node.peer, Node, :list, []) == [] end)
    everywhere([node | others], :sys, :resume, [:global_name_server])
  end

  defp cookies(%{peer: peer}, others, cookie) do
    for other <- [node() | Enum.map(others, & &1.node)],
        do: :peer.call(peer, :erlang, :set_cookie, [other, cookie])
  end

  defp everywhere(nodes, module, function, arguments) do
    apply(module, function, arguments)
    for %{peer: peer} <- nodes, do: :peer.call(peer, module, function, arguments)
  end

  test "a web node without Python speaks with servers on other nodes" do
    pool = start_pool()
    assert {:error, %Error{reason: :not_running}} = Chatterbex.info(server: pool)
    waiting = Task.async(fn -> Chatterbex.await_ready(server: pool, timeout: 60_000) end)
    start_node(pool, size: 2, isolation: :peer)
    assert :ok = Task.await(waiting, 60_000)
    assert {:ok, %Audio{samples: samples}} = Chatterbex.generate(pool, "over there")
    assert samples == echo("over there")
    assert {:ok, %{members: [_, _], isolation: :peer}} = Chatterbex.info(server: pool)
  end

  # Speaks until it is told to stop. It counts each answer once it is certain that no second one comes.
  defp speak_on(pool, kind, n, stop, counted \\ []) do
    text = "#{kind} #{n} #{length(counted)} steps:4 sleep:5"
    result = text |> speak(pool, kind) |> judge(text)
    # A second answer would be in the mailbox before the answer to this call.
    {:ok, _info} = Chatterbex.info(server: pool)
    twice = if Process.info(self(), :message_queue_len) == {:message_queue_len, 0}, do: [], else: [:twice]
    :counters.add(stop.answered, 1, 1)
    counted = [result | twice ++ counted]
    if :atomics.get(stop.flag, 1) == 0, do: speak_on(pool, kind, n, stop, counted), else: {kind, counted}
  end

  defp speak(text, pool, :whole) do
    with {:ok, audio} <- Chatterbex.generate(pool, text), do: audio.samples
  end

  defp speak(text, pool, :resumed) do
    pool |> Chatterbex.stream(text, resume: true) |> Enum.map(& &1.samples) |> IO.iodata_to_binary()
  rescue
    error in Error -> {:error, error}
  end

  defp speak(text, pool, :stream) do
    {:ok, ref} = Chatterbex.stream_to(text, self(), server: pool)
    listen(ref, [])
  end

  defp listen(ref, chunks) do
    receive do
      {:chatterbex, ^ref, {:chunk, chunk}} -> listen(ref, [chunks | chunk.samples])
      {:chatterbex, ^ref, :done} -> IO.iodata_to_binary(chunks)
      {:chatterbex, ^ref, {:error, error}} -> {:error, error}
    end
  end

  defp judge({:error, %Error{reason: reason}}, _text), do: reason
  defp judge(samples, text), do: if(samples == echo(text), do: :right, else: {:wrong, text})

  # Waits until the callers have received this many more answers.
  defp answers(stop, more) do
    enough = :counters.get(stop.answered, 1) + more
    await(fn -> :counters.get(stop.answered, 1) >= enough end, 60_000)
  end

  defp busy?(pool, node),
    do: Enum.any?(on(pool, node), &match?({:ok, %{queue: %{running: n}}} when n > 0, Client.info(&1)))

  @tag timeout: 180_000
  test "three nodes under load, each killed in turn, and a netsplit: every request is answered once" do
    pool = start_pool()
    nodes = for _n <- 1..3, do: start_node(pool, size: 2)
    stop = %{flag: :atomics.new(1, []), answered: :counters.new(1, [])}

    speakers =
      for n <- 1..24 do
        kind = Enum.at([:whole, :resumed, :stream], rem(n, 3))
        Task.async(fn -> speak_on(pool, kind, n, stop) end)
      end

    [split | others] =
      for killed <- nodes do
        await(fn -> busy?(pool, killed.node) end)
        kill(killed)
        answers(stop, 24)
        start_node(pool, size: 2)
      end

    await(fn -> busy?(pool, split.node) end)
    cut_off(split, others)
    await(fn -> on(pool, split.node) == [] end)
    answers(stop, 24)

    # And the nodes find each other again.
    cookies(split, others, Node.get_cookie())
    await(fn -> Node.connect(split.node) == true and busy?(pool, split.node) end, 60_000)
    answers(stop, 24)
    :atomics.put(stop.flag, 1, 1)

    for {kind, results} <- Task.await_many(speakers, 60_000) do
      named = if kind == :stream, do: [:engine_crashed, :noconnection], else: []
      assert Enum.reject(results, &(&1 in [:right | named])) == []
      assert :right in results
    end

    await(fn -> :sys.get_state(pool).requests == %{} and :sys.get_state(pool).monitors == %{} end)

    for member <- members(pool),
        do: await(fn -> match?({:ok, %{queue: %{open: 0, running: 0}}}, Client.info(member)) end)
  end

  test "a netsplit: requests from the other side are spoken here, and that side gives them up" do
    pool = start_pool()
    [one, other] = for _n <- 1..2, do: start_node(pool, size: 1)
    task = Task.async(fn -> Chatterbex.generate(pool, "hold") end)

    holding = fn node ->
      Enum.any?(on(pool, node), &match?({:ok, %{"held" => 1}}, Client.call_model(&1, "held", %{}, 5_000)))
    end

    await(fn -> holding.(one.node) or holding.(other.node) end)
    {there, here} = if holding.(one.node), do: {one, other}, else: {other, one}
    [lost] = on(pool, there.node)
    cut_off(there, [here])
    await(fn -> holding.(here.node) end)
    for member <- on(pool, here.node), do: call_model(member, "release")
    assert {:ok, %Audio{samples: samples}} = Task.await(task, 30_000)
    assert samples == echo("hold")

    await(fn ->
      match?({:ok, %{queue: %{open: 0, running: 0}}}, :peer.call(there.peer, Client, :info, [lost]))
    end)
  end

  test "a draining node hands over to the others" do
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
