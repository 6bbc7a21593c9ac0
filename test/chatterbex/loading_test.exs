defmodule Chatterbex.LoadingTest do
  # Not async: it keeps the runtime, which all servers of the VM use, from answering.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  # A server whose loading waits for the runtime.
  defp start_loading(options) do
    :ok = :sys.suspend(Chatterbex.Runtime)
    on_exit(fn -> :sys.resume(Chatterbex.Runtime) end)
    {:ok, server} = Chatterbex.start_link([model: :fake] ++ options)
    %{load: %{task: task}} = :sys.get_state(server)
    {server, task, Process.monitor(task)}
  end

  test "stopping a server stops the preparation of its model" do
    {server, task, monitor} = start_loading([])
    assert :ok = Chatterbex.stop(server: server)
    assert_receive {:DOWN, ^monitor, :process, ^task, :killed}, 5_000
  end

  test "the load timeout starts with the load" do
    {server, task, monitor} = start_loading(load_timeout: 50)

    assert {:error, %Error{reason: :timeout, message: message}} =
             Chatterbex.await_ready(server: server, timeout: 5_000)

    assert message =~ "was not ready within 50 ms. Raise :load_timeout."
    assert_receive {:DOWN, ^monitor, :process, ^task, :killed}, 5_000
    :ok = Chatterbex.stop(server: server)
  end

  test "the load timeout excludes fetching files" do
    {server, task, _monitor} = start_loading(load_timeout: 600_000)
    send(server, {:fetching, task})
    assert %{load: %{timer: nil}} = :sys.get_state(server)
    :ok = :sys.resume(Chatterbex.Runtime)
    assert :ok = Chatterbex.await_ready(server: server, timeout: 30_000)
    assert %{load: %{timer: timer}} = :sys.get_state(server)
    assert is_reference(timer)
    :ok = Chatterbex.stop(server: server)
  end

  test "calls that wait for the model are bounded, and run in order" do
    {server, _task, _monitor} = start_loading(max_queue: 100)

    requests =
      for n <- 1..101, do: {n, :gen_server.send_request(server, {:call, "echo", %{"n" => n}, 60_000})}

    # A call above the limit is refused at once.
    {101, last} = List.last(requests)

    assert {:reply, {:error, %Error{reason: :overloaded, message: message}}} =
             :gen_server.wait_response(last, 5_000)

    assert message =~ "is full: 100 calls are open, and 100 may be (:max_queue is 100)."

    :ok = :sys.resume(Chatterbex.Runtime)

    # The answers come from one process, so they are in the mailbox in the order of the calls.
    answers =
      for _n <- 1..100 do
        assert_receive {[:alias | _ref], {:ok, %{"arguments" => %{"n" => n}}}}, 10_000
        n
      end

    assert answers == Enum.to_list(1..100)
    :ok = Chatterbex.stop(server: server)
  end

  test "requests that wait for the model are bounded, and spoken in order" do
    {server, _task, _monitor} = start_loading(max_queue: 2)
    test = self()

    ask = fn text -> Task.async(fn -> send(test, {text, Chatterbex.generate(server, text)}) end) end
    tasks = for text <- ["one", "two"], do: {text, ask.(text)}
    await(fn -> match?({:ok, %{queue: %{open: 2, waiting: 2}}}, Chatterbex.info(server: server)) end)
    assert {:error, %Error{reason: :overloaded, details: details}} = Chatterbex.generate(server, "three")
    assert details == %{open: 2, limit: 2, max_queue: 2}
    :ok = :sys.resume(Chatterbex.Runtime)
    Task.await_many(Keyword.values(for {_text, task} <- tasks, do: {:task, task}))
    for text <- ["one", "two"], do: assert_received({^text, {:ok, %Audio{}}})
    :ok = Chatterbex.stop(server: server)
  end

  test "an abandoned call leaves the queue" do
    {server, _task, _monitor} = start_loading(max_queue: 1)

    assert {:error, %Error{reason: :timeout}} = Chatterbex.Client.call_model(server, "echo", %{}, 50)

    await(fn -> :sys.get_state(server).calls == %{} end)
    caller = spawn(fn -> Chatterbex.Client.call_model(server, "echo", %{}, 60_000) end)
    await(fn -> map_size(:sys.get_state(server).calls) == 1 end)
    Process.exit(caller, :kill)
    await(fn -> :sys.get_state(server).calls == %{} end)
    :ok = :sys.resume(Chatterbex.Runtime)
    assert %{"arguments" => %{}} = call_model(server, "echo")
    assert %{monitors: monitors} = :sys.get_state(server)
    assert monitors == %{}
    :ok = Chatterbex.stop(server: server)
  end
end
