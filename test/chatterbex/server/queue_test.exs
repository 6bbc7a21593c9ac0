defmodule Chatterbex.Server.QueueTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Server.{Queue, Request}

  @priorities [:high, :normal, :low]

  defp request(priority, texts) do
    request = %Request{
      ref: make_ref(),
      monitor: make_ref(),
      timer: nil,
      opened_at: 0,
      priority: priority,
      options: %{}
    }

    Request.add(request, pieces(texts))
  end

  defp pieces(texts),
    do: for({text, n} <- Enum.with_index(texts), do: %{number: n, text: text, stream: false, options: %{}})

  defp open!(queue, priority, texts) do
    request = request(priority, texts)
    assert {:ok, queue} = Queue.open(queue, request)
    {request.ref, queue}
  end

  # The pieces that the model gets in turn, if it releases each before the next.
  defp drain(queue, id \\ 1) do
    case Queue.take(queue, id) do
      {_request, piece, queue} -> [piece.text | queue |> Queue.let_go(id) |> drain(id + 1)]
      :none -> []
    end
  end

  test "higher priorities go first, and requests of one priority take turns" do
    queue = Queue.new(10) |> Queue.ready(1, 1)
    {_ref, queue} = open!(queue, :low, ["low"])
    {_ref, queue} = open!(queue, :normal, ["a1", "a2", "a3"])
    {_ref, queue} = open!(queue, :normal, ["b1", "b2"])
    {_ref, queue} = open!(queue, :high, ["high"])
    assert drain(queue) == ["high", "a1", "b1", "a2", "b2", "a3", "low"]
  end

  test "the number of open requests is bounded, and none runs without a model" do
    queue = Queue.new(2)
    assert Queue.limit(queue) == 2
    {first, queue} = open!(queue, :normal, ["a", "b"])
    {_second, queue} = open!(queue, :normal, ["c"])
    assert Queue.open(queue, request(:high, ["d"])) == :full
    assert Queue.take(queue, 1) == :none

    queue = Queue.ready(queue, 3, 1)
    assert Queue.limit(queue) == 5
    {_third, queue} = open!(queue, :normal, ["d"])
    assert {%{ref: ^first}, %{text: "a"}, queue} = Queue.take(queue, 1)
    # A request that is being spoken is open like any other.
    assert Queue.open(queue) == 3
    assert queue.waiting == 2
    {_fourth, queue} = open!(queue, :normal, ["e"])
    {_fifth, queue} = open!(queue, :normal, ["f"])
    assert Queue.open(queue, request(:normal, ["g"])) == :full
    assert {_request, queue} = Queue.close(queue, first)
    assert {:ok, _queue} = Queue.open(queue, request(:normal, ["g"]))
  end

  test "without a queue, only the requests that the model works on are open" do
    queue = Queue.new(0)
    assert Queue.open(queue, request(:normal, ["a"])) == :full
    queue = Queue.ready(queue, 1, 1)
    {_ref, queue} = open!(queue, :normal, ["a"])
    assert Queue.open(queue, request(:normal, ["b"])) == :full
  end

  test "a piece of a closed request keeps its place until the model releases it" do
    queue = Queue.new(5) |> Queue.ready(1, 1)
    {ref, queue} = open!(queue, :normal, ["a", "b"])
    {_ref, queue} = open!(queue, :normal, ["c"])
    assert {_request, %{text: "a"}, queue} = Queue.take(queue, 7)
    assert {%{running: %{7 => %{piece: %{number: 0}}}}, queue} = Queue.close(queue, ref)
    assert Queue.close(queue, ref) == :none
    assert Queue.find(queue, 7) == :none
    assert Queue.take(queue, 8) == :none
    assert {_request, %{text: "c"}, _queue} = queue |> Queue.let_go(7) |> Queue.take(8)
  end

  test "a lost model loses its pieces" do
    queue = Queue.new(5) |> Queue.ready(1, 1)
    {ref, queue} = open!(queue, :normal, ["a"])
    {_request, _piece, queue} = Queue.take(queue, 1)
    {_request, queue} = Queue.close(queue, ref)
    queue = queue |> Queue.lost() |> Queue.ready(1, 1)
    {_ref, queue} = open!(queue, :normal, ["b"])
    assert drain(queue, 2) == ["b"]
  end

  describe "a process that dies" do
    @segv {:exit_status, 139}

    defp never(_deaths), do: false

    test "its pieces are spoken again first, one at a time and alone" do
      queue = Queue.new(9) |> Queue.ready(3, 1)
      {_ref, queue} = open!(queue, :normal, ["a1", "a2"])
      {_ref, queue} = open!(queue, :normal, ["b"])
      {closed, queue} = open!(queue, :normal, ["c"])
      {_request, _piece, queue} = Queue.take(queue, 1)
      {_request, _piece, queue} = Queue.take(queue, 2)
      {_request, _piece, queue} = Queue.take(queue, 3)
      {_request, queue} = Queue.close(queue, closed)
      {_ref, queue} = open!(queue, :high, ["new"])
      refute Queue.suspicious?(queue)

      assert {[], queue} = Queue.died(queue, @segv, &never/1)
      assert Queue.suspicious?(queue)
      assert Queue.take(queue, 4) == :none
      queue = Queue.ready(queue, 3, 1)
      assert {_request, %{text: "a1", deaths: [@segv]}, queue} = Queue.take(queue, 4)
      assert Queue.take(queue, 5) == :none
      queue = Queue.let_go(queue, 4)
      assert {_request, %{text: "b"}, queue} = Queue.take(queue, 5)
      # The last one is alone too.
      assert Queue.take(queue, 6) == :none
      assert Queue.suspicious?(queue)
      queue = Queue.let_go(queue, 5)
      refute Queue.suspicious?(queue)
      assert drain(queue, 6) == ["new", "a2"]
    end

    test "the request to blame gets an error that names its piece" do
      queue = Queue.new(9) |> Queue.ready(2, 1)
      {_innocent, queue} = open!(queue, :normal, ["a"])
      {guilty, queue} = open!(queue, :normal, ["b"])
      {_request, _piece, queue} = Queue.take(queue, 1)
      {_request, _piece, queue} = Queue.take(queue, 2)
      twice = &(length(&1) == 2)
      assert {[], queue} = Queue.died(queue, @segv, twice)
      queue = Queue.ready(queue, 2, 1)
      {_request, %{text: "a"}, queue} = Queue.take(queue, 3)
      queue = Queue.let_go(queue, 3)
      {_request, %{text: "b"}, queue} = Queue.take(queue, 4)

      assert {[{{:guilty, %{text: "b", deaths: [@segv, @segv]}}, %{ref: ^guilty}}], queue} =
               Queue.died(queue, @segv, twice)

      {_request, queue} = Queue.close(queue, guilty)
      assert queue |> Queue.ready(2, 1) |> drain(5) == []
    end

    test "a stream does not repeat audio, and ends without :resume" do
      for resume <- [true, false] do
        queue = Queue.new(9) |> Queue.ready(2, 1)
        request = %{request(:normal, ["a"]) | resume: resume}
        {:ok, queue} = Queue.open(queue, request)
        {_unheard, queue} = open!(queue, :normal, ["b"])
        {_request, _piece, queue} = Queue.take(queue, 1)
        {_request, _piece, queue} = Queue.take(queue, 2)
        assert {0, queue} = Queue.made(queue, 1, 100)
        assert {0, queue} = Queue.made(queue, 1, 50)
        assert {failed, queue} = Queue.died(queue, @segv, &never/1)

        if resume do
          assert failed == []
          queue = Queue.ready(queue, 2, 1)
          assert {_request, %{text: "a", skip: 150}, queue} = Queue.take(queue, 3)
          assert {70, queue} = Queue.made(queue, 3, 70)
          # It dies again before it gets that far.
          {[], queue} = Queue.died(queue, @segv, &never/1)
          assert {_request, %{text: "a", skip: 150}, queue} = queue |> Queue.ready(2, 1) |> Queue.take(4)
          assert {100, queue} = Queue.made(queue, 4, 100)
          assert {50, queue} = Queue.made(queue, 4, 60)
          assert {0, _queue} = Queue.made(queue, 4, 10)
        else
          assert [{:interrupted, %{ref: ref}}] = failed
          assert ref == request.ref
        end
      end
    end
  end

  # A queue under random operations, beside a model of it that is as simple as can be: for each open request its
  # pieces that are still to be spoken, and since when it waits for its turn.
  test "nothing is lost, turns are kept, and no bound is exceeded" do
    base = ExUnit.configuration()[:seed] * 1_000

    for seed <- (base + 1)..(base + 300) do
      :rand.seed(:exsss, {seed, 1, 2})
      max_queue = :rand.uniform(6) - 1
      max_batch = :rand.uniform(4)
      parallel = :rand.uniform(3)

      world = %{
        queue: Queue.new(max_queue),
        ready: false,
        limits: {max_queue, max_batch, parallel},
        open: %{},
        running: %{},
        clock: 0,
        next_id: 1
      }

      world = Enum.reduce(1..200, world, fn _n, world -> world |> random(seed) |> checked(seed) end)

      # All open requests are spoken in the end.
      world = if world.ready, do: world, else: became_ready(world)
      world = finish_all(world, seed)
      assert Enum.all?(world.open, fn {_ref, request} -> request.pieces == [] end), "seed #{seed}"
      assert world.queue.waiting == Enum.count(world.open, fn {_ref, request} -> not request.begun end)
    end
  end

  defp random(world, seed) do
    case :rand.uniform(10) do
      n when n in 1..3 -> opened(world, seed)
      4 -> added(world)
      n when n in 5..7 -> taken(world, seed)
      n when n in 8..9 -> let_go(world)
      10 -> if :rand.uniform(3) == 1 and not world.ready, do: became_ready(world), else: closed(world)
    end
  end

  defp opened(world, seed) do
    {max_queue, max_batch, _parallel} = world.limits
    texts = for _n <- 1..:rand.uniform(3), do: make_ref()
    texts = if :rand.uniform(8) == 1, do: [], else: texts
    request = request(Enum.random(@priorities), texts)
    limit = if world.ready, do: max_queue + max_batch, else: max_queue

    case Queue.open(world.queue, request) do
      {:ok, queue} ->
        assert map_size(world.open) < limit, "seed #{seed}: #{map_size(world.open) + 1} are open"
        entry = %{priority: request.priority, pieces: texts, since: world.clock, begun: false}
        %{world | queue: queue, open: Map.put(world.open, request.ref, entry), clock: world.clock + 1}

      :full ->
        assert map_size(world.open) == limit, "seed #{seed}: refused with #{map_size(world.open)} open"
        world
    end
  end

  defp added(%{open: open} = world) when open == %{}, do: world

  defp added(world) do
    {ref, entry} = Enum.random(world.open)
    texts = for _n <- 1..:rand.uniform(2), do: make_ref()
    since = if eligible?(world, ref, entry), do: entry.since, else: world.clock
    entry = %{entry | pieces: entry.pieces ++ texts, since: since}
    queue = Queue.add(world.queue, ref, pieces(texts))
    %{world | queue: queue, open: Map.put(world.open, ref, entry), clock: world.clock + 1}
  end

  defp taken(world, seed) do
    {_max_queue, max_batch, _parallel} = world.limits
    eligible = Enum.filter(world.open, fn {ref, entry} -> eligible?(world, ref, entry) end)

    case Queue.take(world.queue, world.next_id) do
      :none ->
        assert eligible == [] or not world.ready or map_size(world.running) == max_batch, "seed #{seed}"
        world

      {request, piece, queue} ->
        {ref, entry} =
          Enum.min_by(eligible, fn {_ref, entry} ->
            {Enum.find_index(@priorities, &(&1 == entry.priority)), entry.since}
          end)

        assert request.ref == ref, "seed #{seed}: out of turn"
        assert [piece.text] == Enum.take(entry.pieces, 1), "seed #{seed}: out of order"
        entry = %{entry | pieces: tl(entry.pieces), since: world.clock, begun: true}

        %{
          world
          | queue: queue,
            open: Map.put(world.open, ref, entry),
            running: Map.put(world.running, world.next_id, ref),
            next_id: world.next_id + 1,
            clock: world.clock + 1
        }
    end
  end

  defp let_go(%{running: running} = world) when running == %{}, do: world

  defp let_go(world) do
    {id, ref} = Enum.random(world.running)
    was = match?(%{^ref => _entry}, world.open) and eligible?(world, ref, world.open[ref])
    world = %{world | queue: Queue.let_go(world.queue, id), running: Map.delete(world.running, id)}

    case world.open do
      %{^ref => entry} when not was ->
        %{world | open: Map.put(world.open, ref, %{entry | since: world.clock}), clock: world.clock + 1}

      _in_line_or_closed ->
        world
    end
  end

  defp closed(%{open: open} = world) when open == %{}, do: world

  defp closed(world) do
    {ref, entry} = Enum.random(world.open)
    assert {%{ref: ^ref} = request, queue} = Queue.close(world.queue, ref)
    # Its remaining pieces are reported, so nothing is lost unnoticed.
    assert for(piece <- :queue.to_list(request.pieces), do: piece.text) == entry.pieces
    %{world | queue: queue, open: Map.delete(world.open, ref)}
  end

  defp became_ready(world) do
    {_max_queue, max_batch, parallel} = world.limits
    %{world | queue: Queue.ready(world.queue, max_batch, parallel), ready: true}
  end

  defp finish_all(world, seed) do
    taken = world |> taken(seed) |> checked(seed)

    cond do
      taken.running != %{} -> taken |> let_go() |> finish_all(seed)
      taken == world -> world
    end
  end

  # Before the model is loaded, a request can count on one piece at a time.
  defp eligible?(world, ref, entry) do
    {_max_queue, _max_batch, parallel} = world.limits
    parallel = if world.ready, do: parallel, else: 1
    entry.pieces != [] and Enum.count(world.running, fn {_id, of} -> of == ref end) < parallel
  end

  defp checked(world, seed) do
    {_max_queue, max_batch, parallel} = world.limits
    queue = world.queue
    assert map_size(queue.running) <= max_batch, "seed #{seed}"
    assert queue.running == world.running, "seed #{seed}"
    assert Queue.open(queue) == map_size(world.open), "seed #{seed}"
    assert queue.waiting == Enum.count(world.open, fn {_ref, entry} -> not entry.begun end), "seed #{seed}"

    for {_ref, request} <- queue.requests,
        do: assert(map_size(request.running) <= parallel, "seed #{seed}")

    world
  end
end
