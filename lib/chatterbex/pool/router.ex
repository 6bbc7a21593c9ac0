defmodule Chatterbex.Pool.Router do
  @moduledoc false
  # The process that has a pool's name. To callers it is a server; to servers it is a caller.
  #
  # For each request it keeps the pieces that are not done, to send them to another server if needed. Audio passes
  # through it unchanged.

  use GenServer

  require Logger

  alias Chatterbex.{Client, Error}
  alias Chatterbex.Pool.{Choice, Members}

  # Milliseconds between two checks of the members, and how long a request without a server waits for one.
  @tick 100
  @patience 10_000

  # Errors of a server, not of the request: another server may do better.
  @elsewhere ~w(overloaded cancelled not_running noconnection not_set_up native_not_loaded model_files_missing
                model_load_failed device_unavailable)a

  @spec start_link(GenServer.name()) :: GenServer.on_start()
  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: name)

  @impl true
  def init(name) do
    :ok = Members.join_router(name, self())
    Process.send_after(self(), :tick, @tick)

    state = %{
      name: name,
      draining: false,
      leaving: [],
      requests: %{},
      # The request of each monitor: of its caller, and of its server.
      monitors: %{},
      choice: %Choice{},
      told: %{},
      # The processes to notify as soon as there is a server.
      askers: [],
      strangers: []
    }

    {:ok, state}
  end

  defp members(state), do: Members.list(state.name)

  @impl true
  def handle_call({:join, member}, _from, state) do
    unless state.draining, do: Members.join(state.name, member)
    {:reply, :ok, state}
  end

  def handle_call(:drain, _from, state) do
    members = Members.local(state.name)
    Members.leave(state.name, members)
    # Servers that an earlier call took out may still have work.
    leaving = Enum.uniq(members ++ state.leaving)
    {:reply, {:ok, leaving}, %{state | draining: true, leaving: leaving}}
  end

  # Asking a server takes time, and it may die. A separate process asks, and asks the next one then.
  def handle_call(question, from, state) do
    %{name: name} = state
    members = sorted(members(state))
    router = self()
    patience = if state.draining, do: 0, else: @patience
    asking = spawn(fn -> answer(question, from, {router, name, now() + patience}, members) end)
    spawn(fn -> end_with_caller(asking, from) end)
    {:noreply, state}
  end

  # The servers see the asking process as the caller, so it must end with the real one.
  defp end_with_caller(asking, {caller, _tag}) do
    calling = Process.monitor(caller)
    monitor = Process.monitor(asking)

    receive do
      {:DOWN, ^calling, :process, _caller, _reason} -> Process.exit(asking, :kill)
      {:DOWN, ^monitor, :process, _asking, _reason} -> :ok
    end
  end

  # Those of this node first.
  defp sorted(members), do: Enum.sort_by(members, &(node(&1) != node()))

  defp answer(:info, from, {_router, name, _until}, members) do
    infos = for member <- members, {:ok, info} <- [Client.info(member)], do: info
    GenServer.reply(from, if(infos == [], do: {:error, empty(name)}, else: {:ok, summary(name, infos)}))
  end

  # A pool on another node may be yet to come: the caller's own timeout ends this.
  defp answer(:await_ready, from, pool, []),
    do: answer(:await_ready, from, pool, await_members(pool, :infinity))

  # All servers may have died just now, and may be back in a moment.
  defp answer(question, from, {_router, name, until} = pool, []) do
    case await_members(pool, max(until - now(), 0)) do
      [] -> GenServer.reply(from, {:error, empty(name)})
      members -> answer(question, from, pool, members)
    end
  end

  # The first that is ready is enough.
  defp answer(:await_ready, from, _pool, members) do
    answer =
      members
      |> Task.async_stream(&Client.await_ready(&1, :infinity),
        ordered: false,
        timeout: :infinity,
        max_concurrency: length(members)
      )
      |> Enum.reduce_while(nil, fn
        {:ok, :ok}, _last -> {:halt, :ok}
        {:ok, error}, _last -> {:cont, error}
      end)

    GenServer.reply(from, answer)
  end

  defp answer(question, from, {_router, name, _until}, members) do
    answer =
      Enum.reduce_while(members, {:error, empty(name)}, fn member, _last ->
        case Client.request(member, question, :infinity) do
          {:error, %Error{reason: reason} = error} when reason in [:engine_crashed | @elsewhere] ->
            {:cont, {:error, error}}

          answer ->
            {:halt, answer}
        end
      end)

    GenServer.reply(from, answer)
  end

  defp await_members({router, _name, _until}, timeout) do
    send(router, {:tell_members, self()})

    receive do
      {:members, members} -> sorted(members)
    after
      timeout -> []
    end
  end

  defp summary(name, infos) do
    queue = infos |> Enum.map(& &1.queue) |> Enum.reduce(&Map.merge(&1, &2, fn _key, a, b -> a + b end))
    best = Enum.find(infos, hd(infos), &(&1.status == :ready))
    Map.merge(best, %{server: name, queue: queue, members: infos})
  end

  defp empty(name) do
    Error.new(
      :not_running,
      "the pool #{inspect(name)} has no server now: none was started, none is connected, or it is being drained",
      %{server: name}
    )
  end

  @impl true
  def handle_cast({:open, caller, ref, settings, pieces}, state) do
    monitor = Process.monitor(caller)

    request = %{
      ref: ref,
      caller: monitor,
      settings: settings,
      pieces: Map.new(pieces, &{&1.number, &1}),
      opened_at: now(),
      member: nil,
      monitor: nil,
      tried: [],
      error: nil,
      heard: false
    }

    {:noreply, place(%{state | monitors: Map.put(state.monitors, monitor, ref)}, request)}
  end

  def handle_cast({:more, ref, pieces}, state) do
    case state.requests do
      %{^ref => request} ->
        request = %{request | pieces: Map.merge(request.pieces, Map.new(pieces, &{&1.number, &1}))}

        if request.member do
          Client.more(request.member, request.monitor, pieces)
          {:noreply, state |> put(request) |> given(request, pieces)}
        else
          {:noreply, put(state, request)}
        end

      _closed ->
        {:noreply, state}
    end
  end

  def handle_cast({:release, ref}, state), do: {:noreply, close(state, ref)}

  @impl true
  def handle_info(:tick, state) do
    Process.send_after(self(), :tick, @tick)
    members = members(state)
    routers = Members.routers(state.name) -- [self()]

    state =
      %{state | choice: Choice.keep(state.choice, members, routers)}
      |> tell_others(routers)
      |> tell_askers(members)
      |> meet_strangers()

    parked = for {_ref, %{member: nil} = request} <- state.requests, do: request
    {:noreply, Enum.reduce(parked, state, &place(&2, &1))}
  end

  def handle_info({:tell_members, asker}, state),
    do: {:noreply, tell_askers(%{state | askers: [asker | state.askers]}, members(state))}

  def handle_info({:waiting, router, given}, state),
    do: {:noreply, %{state | choice: Choice.elsewhere(state.choice, router, given)}}

  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    case state.monitors do
      %{^monitor => ref} ->
        request = state.requests[ref]

        if request.caller == monitor,
          do: {:noreply, close(state, ref)},
          else: {:noreply, leave(state, request, Client.ended(state.name, reason))}

      _closed ->
        {:noreply, state}
    end
  end

  def handle_info({monitor, message}, state) when is_reference(monitor) do
    with %{^monitor => ref} <- state.monitors, %{^ref => request} <- state.requests do
      {:noreply, said(message, request, state)}
    else
      _closed -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp said({:chunk, number, audio} = message, request, state) do
    tell(request, message)
    skip = &Map.update(&1, :skip, byte_size(audio.samples), fn had -> had + byte_size(audio.samples) end)
    put(state, %{request | heard: true, pieces: Map.update!(request.pieces, number, skip)})
  end

  defp said({:done, number, _audio} = message, request, state) do
    tell(request, message)
    {piece, pieces} = Map.pop!(request.pieces, number)
    choice = Choice.spoken(state.choice, request.member, characters([piece]), now())
    put(%{state | choice: choice}, %{request | pieces: pieces})
  end

  defp said({:error, error}, request, state), do: leave(state, request, error)

  ## Placing requests

  # Tries servers that were not tried yet. If there are none, it tries again until its patience ends.
  defp place(state, request) do
    pieces = pieces(request)
    candidates = members(state) -- request.tried

    case Choice.best(state.choice, candidates, characters(pieces), voice(request)) do
      nil -> park(state, request)
      member -> give(state, request, member, pieces)
    end
  end

  defp give(state, request, member, pieces) do
    with {:ok, settings} <- settings(request),
         {:ok, monitor} <- Client.open(member, settings, pieces) do
      request = %{request | member: member, monitor: monitor}
      state = %{state | monitors: Map.put(state.monitors, monitor, request.ref)}
      state |> put(request) |> given(request, pieces)
    else
      {:error, %Error{reason: :timeout} = error} -> refuse(state, request, error)
      {:error, error} -> place(state, %{request | tried: [member | request.tried], error: error})
    end
  end

  # Time spent with another server counts.
  defp settings(%{settings: %{timeout: :infinity} = settings}), do: {:ok, settings}

  defp settings(%{settings: settings, opened_at: opened_at}) do
    case settings.timeout - (now() - opened_at) do
      left when left > 0 ->
        {:ok, %{settings | timeout: left}}

      _none ->
        {:error, Error.new(:timeout, "no audio within #{settings.timeout} ms. Raise :timeout.")}
    end
  end

  defp park(state, request) do
    full? = match?(%Error{reason: :overloaded}, request.error)

    cond do
      full? and members(state) != [] -> refuse(state, request, full(state))
      now() - request.opened_at > @patience -> refuse(state, request, request.error || empty(state.name))
      state.draining and members(state) == [] -> refuse(state, request, request.error || empty(state.name))
      true -> put(state, %{request | tried: []})
    end
  end

  defp full(state) do
    Error.new(
      :overloaded,
      "all #{length(members(state))} servers of the pool #{inspect(state.name)} are full. Try again later, raise " <>
        ":max_queue, or add servers."
    )
  end

  # Its server died, or refused it.
  defp leave(state, request, error) do
    state = let_go(state, request)
    request = %{request | member: nil, monitor: nil, tried: [request.member | request.tried], error: error}

    if movable?(request, error), do: place(state, request), else: refuse(state, request, error)
  end

  # A text that killed its process would kill the next one too.
  defp movable?(%{heard: true, settings: settings}, _error) when not is_map_key(settings, :resume), do: false
  defp movable?(%{heard: true, settings: %{resume: false}}, _error), do: false

  defp movable?(_request, %Error{reason: :engine_crashed, details: details}),
    do: not is_map_key(details, :deaths)

  # The model of this server was too slow to load, not the request.
  defp movable?(_request, %Error{reason: :timeout, details: details}),
    do: is_map_key(details, :load_timeout)

  defp movable?(_request, %Error{reason: reason}), do: reason in @elsewhere

  defp refuse(state, request, error) do
    tell(request, {:error, error})
    state |> put(request) |> close(request.ref)
  end

  defp close(state, ref) do
    case Map.pop(state.requests, ref) do
      {nil, _requests} ->
        state

      {request, requests} ->
        Process.demonitor(request.caller, [:flush])
        state = let_go(state, request)
        %{state | requests: requests, monitors: Map.delete(state.monitors, request.caller)}
    end
  end

  defp let_go(state, %{member: nil}), do: state

  defp let_go(state, request) do
    Client.release(request.member, request.monitor)
    choice = Choice.taken_back(state.choice, request.member, characters(pieces(request)))
    %{state | choice: choice, monitors: Map.delete(state.monitors, request.monitor)}
  end

  defp given(state, request, pieces) do
    choice = Choice.given(state.choice, request.member, characters(pieces), voice(request), now())
    %{state | choice: choice}
  end

  defp put(state, request), do: %{state | requests: Map.put(state.requests, request.ref, request)}

  defp pieces(request), do: request.pieces |> Enum.sort() |> Enum.map(&elem(&1, 1))

  # A recording to convert has no characters, so it counts as a fixed number of them.
  defp characters(pieces), do: pieces |> Enum.map(&characters_of/1) |> Enum.sum()

  defp characters_of(%{text: ""}), do: 500
  defp characters_of(%{text: text}), do: byte_size(text)

  defp voice(%{settings: %{options: %{"voice" => voice}}}), do: :erlang.phash2(voice)
  defp voice(_request), do: nil

  defp tell(request, message), do: send(request.ref, {request.ref, message})

  defp now, do: System.monotonic_time(:millisecond)

  defp tell_askers(%{askers: []} = state, _members), do: state
  defp tell_askers(state, []), do: %{state | askers: Enum.filter(state.askers, &Process.alive?/1)}

  defp tell_askers(state, members) do
    for asker <- state.askers, do: send(asker, {:members, members})
    %{state | askers: []}
  end

  ## Other nodes

  defp tell_others(state, routers) do
    waiting = Choice.waiting(state.choice)
    if waiting != state.told, do: for(router <- routers, do: send(router, {:waiting, self(), waiting}))
    %{state | told: waiting}
  end

  defp meet_strangers(state) do
    strangers = Members.strangers(state.name)

    for stranger <- strangers -- state.strangers do
      Logger.warning(
        "chatterbex: the pool #{inspect(state.name)} does not use the servers of #{stranger}: its version of the " <>
          "library speaks another protocol than this one (#{Client.protocol()})"
      )
    end

    %{state | strangers: strangers}
  end
end
