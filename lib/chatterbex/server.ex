defmodule Chatterbex.Server do
  @moduledoc false
  # One model: loads it, submits pieces of requests to the model thread when it is their turn, and passes the results
  # on. `Chatterbex.Client` is the other side, in the calling process.
  #
  # A request is in `queue` until its caller releases it, ends, or gets an error. A call of a function of the model is
  # in `calls` until it is answered, its time is up, or its caller ends.
  #
  # With `isolation: :peer` the model is in its own operating system process, which may die. The next process then repeats
  # the work, except for streams that already sent audio and texts that are to blame: see Chatterbex.Server.Crashes.
  #
  # With `idle:` a model without open requests for that long is unloaded. The next request loads it again.

  use GenServer, restart: :permanent, shutdown: 5_000

  require Logger

  alias Chatterbex.{
    Audio,
    Client,
    Configuration,
    Error,
    Model,
    Names,
    Options,
    Peer,
    Runtime,
    Telemetry
  }

  alias Chatterbex.Server.{Blame, Call, Calls, Crashes, Description, Engine, Failure, Loading, Queue, Request}

  # The next request tries again to load a model that failed, but not every request of a flood does.
  @retry_after 1_000

  @spec start_link(keyword) :: GenServer.on_start() | {:error, Error.t()}
  def start_link(given) do
    with {:ok, configured} <- Configuration.server_options(),
         {:ok, options} <- Options.validate(:server, merge(configured, given)),
         {:ok, model} <- Model.fetch(options.model),
         {:ok, options} <- Options.of_model(options, given, model),
         :ok <- if(options.testing, do: :ok, else: Peer.available(options)),
         do: start(options, model)
  end

  defp start(options, model) do
    GenServer.start_link(__MODULE__, {options, model}, start_options(options.name))
  rescue
    # A registry that is missing raises here, in the calling process.
    exception ->
      {:error, Failure.not_registered(options.name, exception)}
  end

  defp merge(configured, given),
    do: if(Keyword.keyword?(given), do: Keyword.merge(configured, given), else: given)

  defp start_options(nil), do: []
  defp start_options(name), do: [name: name]

  @impl true
  def init({options, model}) do
    Process.flag(:trap_exit, true)

    state = %{
      name: options.name || self(),
      options: options,
      model: model,
      status: :loading,
      model_id: nil,
      engine: nil,
      os_pid: nil,
      crashes: %Crashes{},
      died: 0,
      guilty: %{},
      load: nil,
      loaded: %{},
      queue: Queue.new(options.max_queue),
      calls: %{},
      monitors: %{},
      ready_waiters: [],
      idle_waiters: [],
      used_at: nil
    }

    {:ok, state, {:continue, :load}}
  end

  @impl true
  def handle_continue(:load, state), do: {:noreply, load(state)}

  @impl true
  def handle_call(:await_ready, _from, %{status: :ready} = state), do: {:reply, :ok, state}

  def handle_call(:await_ready, from, state) do
    case working(state) do
      {:ok, state} -> {:noreply, %{state | ready_waiters: [from | state.ready_waiters]}}
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  # Answered once nothing is open. A caller that has stopped waiting ignores the answer.
  def handle_call(:await_idle, from, state) do
    if in_use?(state),
      do: {:noreply, %{state | idle_waiters: [from | state.idle_waiters]}},
      else: {:reply, :ok, state}
  end

  def handle_call(:info, _from, state), do: {:reply, {:ok, Description.describe(state)}, state}

  # The information that a caller needs to cut its text and check its options.
  def handle_call(:about, _from, state) do
    about = %{
      model: state.model,
      parallel: state.queue.parallel,
      language_pack: state.options.language_pack,
      voices: state.options.voices,
      node: node(),
      protocol: Client.protocol(),
      testing: state.options.testing,
      max_characters: state.options.max_characters,
      timeout: state.options.timeout
    }

    {:reply, {:ok, about}, state}
  end

  # A function of the model; the answer is a map, or an error.
  def handle_call({:call, function, arguments, timeout}, from, state) do
    case working(state) do
      {:ok, state} -> {:noreply, call(state, from, function, arguments, timeout)}
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  @impl true
  def handle_cast({:open, caller, ref, settings, pieces}, state) do
    case working(state) do
      {:ok, state} ->
        {:noreply, open(state, caller, ref, settings, pieces)}

      {:error, error} ->
        tell(ref, {:error, error})
        {:noreply, state}
    end
  end

  def handle_cast({:more, ref, pieces}, state),
    do: {:noreply, dispatch(%{state | queue: Queue.add(state.queue, ref, pieces)})}

  def handle_cast({:release, ref}, state), do: {:noreply, state |> give_up(ref) |> dispatch()}

  @impl true
  def handle_info({:chatterbex_event, id, event, payload}, state),
    do: {:noreply, event(event, id, payload, state)}

  def handle_info({:prepared, task, result}, %{load: %{task: task}, status: :loading} = state) do
    case result do
      {:ok, folder} -> {:noreply, submit_load(folder, state)}
      # Its end is on its way, with the reason.
      {:error, :peer_down} -> {:noreply, state}
      {:error, error} -> {:noreply, load_failed(state, error)}
    end
  end

  # Fetching files has no time limit: a stalled transfer ends by itself.
  def handle_info({:fetching, task}, %{load: %{task: task}, status: :loading} = state),
    do: {:noreply, put_load_timer(state, :infinity)}

  def handle_info({:peer_up, peer, os_pid}, %{engine: peer} = state),
    do: {:noreply, %{state | os_pid: os_pid}}

  def handle_info({:EXIT, peer, {:shutdown, {:peer_down, reason}}}, %{engine: peer} = state),
    do: {:noreply, died(state, reason)}

  def handle_info({:EXIT, peer, reason}, %{engine: peer} = state),
    do: {:noreply, died(state, {:failed, Options.Schema.show(reason)})}

  def handle_info({:start_again, load}, %{load: %{ref: load}, status: :loading} = state),
    do: {:noreply, prepare(state)}

  def handle_info({:timeout, {:request, ref}}, state) do
    case state.queue.requests do
      %{^ref => request} ->
        {:noreply, state |> fail(request, Failure.timed_out(request, state)) |> dispatch()}

      _closed ->
        {:noreply, state}
    end
  end

  def handle_info({:timeout, {:call, id}}, state) do
    {:noreply, state |> take_back(id) |> answer_call(id, {:error, Failure.no_answer(state)})}
  end

  def handle_info({:timeout, {:load, load}}, %{load: %{ref: load}, status: :loading} = state) do
    {:noreply, load_failed(state |> stop_preparing() |> stop_engine(), Failure.not_ready(state))}
  end

  # One timer for each load, not for each request: this decides whether the model is idle.
  def handle_info({:timeout, {:idle, load}}, %{load: %{ref: load}, status: :ready} = state) do
    left = state.options.idle - (System.monotonic_time(:millisecond) - state.used_at)

    cond do
      in_use?(state) ->
        start_timer({:idle, load}, state.options.idle)
        {:noreply, state}

      left > 0 ->
        start_timer({:idle, load}, left)
        {:noreply, state}

      true ->
        {:noreply, unload(state)}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case state.monitors do
      %{^monitor => {:request, ref}} -> {:noreply, state |> give_up(ref) |> dispatch()}
      %{^monitor => {:call, id}} -> {:noreply, state |> take_back(id) |> forget_call(id)}
      _released -> {:noreply, state}
    end
  end

  # The task that prepares a load answers before it ends. If it did not, it crashed.
  def handle_info({:EXIT, task, reason}, %{load: %{task: task}, status: :loading} = state)
      when reason != :normal do
    {:noreply, load_failed(state, Failure.not_prepared(reason))}
  end

  def handle_info(_late_or_foreign, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    error = Failure.stopped(state)
    if state.load && state.status == :loading, do: Telemetry.stop(state.load.span, %{}, %{error: error})
    state |> fail_all(error) |> stop_preparing() |> stop_engine()
  end

  ## Loading

  defp load(state), do: state |> begin_load() |> prepare()

  defp begin_load(state) do
    %{options: options, model: model} = state
    metadata = %{server: state.name, model: model.name, device: options.device}
    span = Telemetry.start([:chatterbex, :model, :load], %{}, metadata)
    load = %{ref: make_ref(), span: span, metadata: metadata, timer: nil, task: nil}
    put_load_timer(%{state | status: :loading, load: load}, options.load_timeout)
  end

  defp prepare(state) do
    engine = Engine.start(state.options)
    task = Loading.prepare(engine, state.model, state.options)
    %{state | engine: engine, load: %{state.load | task: task}}
  end

  defp put_load_timer(%{load: load} = state, timeout) do
    cancel_timer(load.timer)
    %{state | load: %{load | timer: start_timer({:load, load.ref}, timeout)}}
  end

  # It does not run while files are fetched.
  defp keep_load_timer(%{load: %{timer: nil}} = state),
    do: put_load_timer(state, state.options.load_timeout)

  defp keep_load_timer(state), do: state

  defp submit_load(folder, state) do
    model_id = Runtime.new_id()

    case Engine.submit(state.engine, Loading.command(model_id, state.model, state.options, folder)) do
      :ok ->
        Engine.watch(state.engine, model_id)
        keep_load_timer(%{state | model_id: model_id, load: %{state.load | task: nil}})

      {:error, error} ->
        load_failed(state, error)
    end
  end

  defp load_failed(state, error) do
    Logger.error("chatterbex: #{inspect(state.name)} has no model: #{error.message}")
    Telemetry.stop(state.load.span, %{}, %{error: error})
    cancel_timer(state.load.timer)
    failed(%{state | crashes: %Crashes{}}, error)
  end

  defp in_use?(state), do: Queue.open(state.queue) > 0 or state.calls != %{}

  # Records that the model was used just now, and answers those that wait for an idle server.
  defp used(state) do
    idle = if in_use?(state), do: [], else: state.idle_waiters
    Enum.each(idle, &GenServer.reply(&1, :ok))

    %{
      state
      | used_at: System.monotonic_time(:millisecond),
        idle_waiters: state.idle_waiters -- idle
    }
  end

  defp unload(state) do
    state = stop_engine(state)

    Telemetry.execute(
      [:chatterbex, :model, :unload],
      %{system_time: System.system_time()},
      Map.put(state.load.metadata, :reason, :idle)
    )

    # The rest of the model's description also holds for the next one.
    %{state | status: :idle, queue: Queue.lost(state.queue), loaded: Map.delete(state.loaded, "memory")}
  end

  # The next request tries to load again.
  defp failed(state, error) do
    # A model in this VM has already been removed. A process without its model is of no use.
    state = if state.engine == :here, do: state, else: stop_engine(state)
    state = fail_all(state, error)

    %{
      state
      | status: {:failed, error, System.monotonic_time(:millisecond)},
        model_id: nil,
        queue: Queue.lost(state.queue)
    }
  end

  # The model's process is gone, and with it all that it had.
  defp died(state, reason) do
    loading? = state.status == :loading
    state = stop_preparing(%{state | engine: nil, os_pid: nil, model_id: nil, died: state.died + 1})
    how = Crashes.describe(reason)
    state = survive(state, reason, how)

    Telemetry.execute(
      [:chatterbex, :peer, :down],
      %{system_time: System.system_time(), requests: Queue.open(state.queue), died: state.died},
      %{server: state.name, model: state.model.name, reason: reason}
    )

    case Crashes.add(state.crashes, reason, loading?) do
      {:give_up, crashes} ->
        state = %{state | crashes: crashes}
        load_failed(state, Failure.keeps_dying(state))

      {delay, crashes} ->
        Logger.warning(
          "chatterbex: the process of #{inspect(state.name)} died by #{how}; the model is loaded again in #{delay} ms"
        )

        state = if loading?, do: keep_load_timer(state), else: begin_load(state)
        Process.send_after(self(), {:start_again, state.load.ref}, delay)
        %{state | crashes: crashes}
    end
  end

  # Running requests wait for the next process, except those that cannot.
  defp survive(state, reason, how) do
    {failed, queue} = Queue.died(state.queue, reason, &Crashes.guilty?/1)

    %{state | queue: queue}
    |> suspect_calls(reason)
    |> then(&Enum.reduce(failed, &1, fn {why, request}, state -> fail_for(why, request, how, state) end))
  end

  defp fail_for(:interrupted, request, how, state), do: fail(state, request, Failure.interrupted(how))

  defp fail_for({:guilty, piece}, request, _how, state) do
    fail(
      %{state | guilty: Blame.remember(state.guilty, piece)},
      request,
      Failure.guilty(piece.text, piece.deaths)
    )
  end

  defp suspect_calls(state, reason) do
    {guilty, calls} = Calls.died(state.calls, reason)

    Enum.reduce(guilty, %{state | calls: calls}, fn id, state ->
      answer_call(state, id, {:error, Failure.guilty_call(calls[id])})
    end)
  end

  defp stop_preparing(%{load: %{task: task}} = state) when is_pid(task) do
    Process.unlink(task)
    Process.exit(task, :kill)
    %{state | load: %{state.load | task: nil}}
  end

  defp stop_preparing(state), do: state

  defp working(%{status: {:failed, error, at}} = state) do
    if retry?(error, at), do: {:ok, load(state)}, else: {:error, error}
  end

  defp working(%{status: :idle} = state), do: {:ok, load(state)}
  defp working(state), do: {:ok, state}

  # The setup may have changed since, and checking it is cheap.
  defp retry?(%{reason: reason}, _at) when reason in [:not_set_up, :model_files_missing], do: true
  defp retry?(_error, at), do: System.monotonic_time(:millisecond) - at >= @retry_after

  defp stop_engine(%{engine: nil} = state), do: state

  defp stop_engine(state) do
    Engine.stop(state.engine, state.model_id)
    %{state | engine: nil, os_pid: nil, model_id: nil}
  end

  ## Requests

  defp open(state, caller, ref, settings, pieces) do
    request = %Request{
      ref: ref,
      monitor: Process.monitor(caller),
      timer: start_timer({:request, ref}, settings.timeout),
      deadline: settings.deadline,
      opened_at: System.monotonic_time(),
      priority: settings.priority,
      options: settings.options,
      resume: Map.get(settings, :resume, false)
    }

    case Queue.open(state.queue, Request.add(request, pieces)) do
      {:ok, queue} ->
        dispatch(%{
          state
          | queue: queue,
            monitors: Map.put(state.monitors, request.monitor, {:request, ref})
        })

      :full ->
        tell(ref, {:error, Failure.full(state, "requests", Queue.open(state.queue))})
        let_caller_go(request)
        state
    end
  end

  defp dispatch(%{status: :ready} = state) do
    {due, pieces?} = Calls.due(state.calls, state.queue)
    state = Enum.reduce(due, state, &submit_call(&2, &1))
    if pieces?, do: dispatch_pieces(state), else: state
  end

  defp dispatch(state), do: state

  defp dispatch_pieces(state) do
    id = Runtime.new_id()

    case Queue.take(state.queue, id) do
      {request, piece, queue} -> %{state | queue: queue} |> submit(id, request, piece) |> dispatch_pieces()
      :none -> state
    end
  end

  defp submit(state, id, request, piece) do
    with :innocent <- Blame.of(state.guilty, piece.text),
         :ok <- Engine.submit(state.engine, generate_command(id, piece, request, state)) do
      state
    else
      {:error, error} ->
        %{state | queue: Queue.let_go(state.queue, id)} |> fail(request, error)

      {:guilty, deaths} ->
        %{state | queue: Queue.let_go(state.queue, id)} |> fail(request, Failure.guilty(piece.text, deaths))
    end
  end

  defp generate_command(id, piece, request, state) do
    %{
      "op" => "generate",
      "id" => id,
      "model_id" => state.model_id,
      "text" => piece.text,
      "stream" => piece.stream,
      "options" => Map.merge(request.options, piece.options)
    }
  end

  # Nobody is left to be answered.
  defp give_up(state, ref) do
    case Queue.close(state.queue, ref) do
      {request, queue} -> forget(%{state | queue: queue}, request)
      :none -> state
    end
  end

  defp fail(state, request, error) do
    tell(request.ref, {:error, error})
    give_up(state, request.ref)
  end

  defp forget(state, request) do
    let_caller_go(request)
    if state.engine, do: Enum.each(request.running, fn {id, _piece} -> Engine.cancel(state.engine, id) end)
    used(%{state | monitors: Map.delete(state.monitors, request.monitor)})
  end

  defp let_caller_go(%{monitor: monitor, timer: timer}) do
    Process.demonitor(monitor, [:flush])
    cancel_timer(timer)
  end

  defp fail_all(state, error) do
    state = Enum.reduce(Map.values(state.queue.requests), state, &fail(&2, &1, error))
    Enum.each(state.ready_waiters, &GenServer.reply(&1, {:error, error}))
    state = Enum.reduce(Map.keys(state.calls), state, &answer_call(&2, &1, {:error, error}))
    %{state | ready_waiters: []}
  end

  defp tell(ref, message), do: send(ref, {ref, message})

  ## Calls

  # The limit is the same as for requests. Until the model is loaded they wait, and are submitted in the order of their ids.
  defp call(state, {caller, _tag} = from, function, arguments, timeout) do
    open = map_size(state.calls)

    if open < Queue.limit(state.queue) do
      id = Runtime.new_id()

      call = %Call{
        from: from,
        function: function,
        arguments: arguments,
        monitor: Process.monitor(caller),
        timer: start_timer({:call, id}, timeout)
      }

      dispatch(%{
        state
        | calls: Map.put(state.calls, id, call),
          monitors: Map.put(state.monitors, call.monitor, {:call, id})
      })
    else
      GenServer.reply(from, {:error, Failure.full(state, "calls", open)})
      state
    end
  end

  defp submit_call(state, id) do
    %{^id => call} = state.calls

    command = %{
      "op" => "call",
      "id" => id,
      "model_id" => state.model_id,
      "function" => call.function,
      "arguments" => call.arguments
    }

    case Engine.submit(state.engine, command) do
      :ok -> %{state | calls: Map.put(state.calls, id, %{call | submitted: true})}
      {:error, error} -> answer_call(state, id, {:error, error})
    end
  end

  defp take_back(state, id) do
    if state.status == :ready, do: Engine.cancel(state.engine, id)
    state
  end

  defp answer_call(state, id, answer) do
    with %{^id => %{from: from}} <- state.calls, do: GenServer.reply(from, answer)
    forget_call(state, id)
  end

  defp forget_call(state, id) do
    case Map.pop(state.calls, id) do
      {nil, _calls} ->
        state

      {call, calls} ->
        let_caller_go(call)
        used(%{state | calls: calls, monitors: Map.delete(state.monitors, call.monitor)})
    end
  end

  ## Events of the model thread

  defp event("loaded", id, info, %{model_id: id} = state) do
    cancel_timer(state.load.timer)
    Telemetry.stop(state.load.span, %{}, %{error: nil})
    Enum.each(state.ready_waiters, &GenServer.reply(&1, :ok))
    max_batch = state.options.max_batch || info["max_batch"] || 1
    start_timer({:idle, state.load.ref}, state.options.idle)

    state = %{
      used(state)
      | status: :ready,
        loaded: info,
        crashes: Crashes.loaded(state.crashes),
        queue: Queue.ready(state.queue, max_batch, info["parallel"] || 1),
        ready_waiters: []
    }

    dispatch(state)
  end

  defp event("failed", id, payload, %{model_id: id, status: :loading} = state),
    do: load_failed(state, Error.from_native(payload))

  # The model is gone with everything in it.
  defp event("failed", id, payload, %{model_id: id} = state) do
    error = Error.from_native(payload)
    Logger.error("chatterbex: #{inspect(state.name)} lost its model: #{error.message}")
    failed(state, error)
  end

  defp event("fallback", id, payload, %{model_id: id} = state) do
    Logger.warning(
      "chatterbex: #{inspect(state.name)} runs on the CPU instead of #{payload["from"]}: #{payload["reason"]}"
    )

    Telemetry.execute([:chatterbex, :device, :fallback], %{system_time: System.system_time()}, %{
      server: state.name,
      model: state.model.name,
      from: payload["from"],
      to: payload["to"],
      reason: payload["reason"]
    })

    device =
      Map.merge(state.loaded["device"] || %{}, %{
        "actual" => payload["to"],
        "reason" => payload["reason"],
        "proof" => nil,
        "limited" => nil
      })

    components = Map.new(state.loaded["components"] || %{}, fn {name, _device} -> {name, payload["to"]} end)
    %{state | loaded: Map.merge(state.loaded, %{"device" => device, "components" => components})}
  end

  defp event("started", id, _payload, state) do
    with {%{running: running} = request, 0} when map_size(running) == 1 <- Queue.find(state.queue, id) do
      measurements = %{
        duration: System.monotonic_time() - request.opened_at,
        waiting: state.queue.waiting,
        running: map_size(state.queue.running)
      }

      Telemetry.execute([:chatterbex, :queue, :wait], measurements, %{
        server: state.name,
        model: state.model.name,
        priority: request.priority
      })
    end

    state
  end

  defp event("chunk", id, payload, state) do
    with {request, number} <- Queue.find(state.queue, id) do
      {had, queue} = Queue.made(state.queue, id, byte_size(payload["samples"]))
      payload = Map.update!(payload, "samples", &binary_part(&1, had, byte_size(&1) - had))
      if payload["samples"] != "" or had == 0, do: tell(request.ref, {:chunk, number, audio(payload, state)})
      %{state | queue: queue}
    else
      :none -> state
    end
  end

  defp event(name, id, payload, %{calls: calls} = state) when is_map_key(calls, id) do
    case name do
      "done" -> state |> answer_call(id, {:ok, payload}) |> alive() |> dispatch()
      "failed" -> state |> answer_call(id, {:error, Error.from_native(payload)}) |> dispatch()
      "cancelled" -> state |> answer_call(id, {:error, Failure.cancelled()}) |> dispatch()
      _other -> state
    end
  end

  defp event("done", id, payload, state),
    do: state |> alive() |> finish(id, fn -> {:done, audio(payload, state)} end)

  defp event("failed", id, payload, state), do: finish(state, id, fn -> Error.from_native(payload) end)
  defp event("cancelled", id, _payload, state), do: finish(state, id, &Failure.cancelled/0)
  defp event(_other, _id, _payload, state), do: state

  # The model works again, so earlier crashes no longer count as a row.
  defp alive(state), do: %{state | crashes: %Crashes{}}

  # The model has let go of a piece.
  defp finish(state, id, outcome) do
    found = Queue.find(state.queue, id)
    state = %{state | queue: Queue.let_go(state.queue, id)}

    case found do
      {request, number} -> state |> finish_piece(request, number, outcome.()) |> dispatch()
      :none -> dispatch(state)
    end
  end

  defp finish_piece(state, request, number, {:done, audio}) do
    tell(request.ref, {:done, number, audio})
    state
  end

  defp finish_piece(state, request, _number, %Error{} = error), do: fail(state, request, error)

  defp audio(%{"samples" => samples} = payload, state) do
    metadata = Names.atoms(payload["metadata"] || %{})

    %Audio{
      samples: samples,
      sample_rate: state.loaded["sample_rate"] || state.model.sample_rate,
      metadata: Map.put(metadata, :model, state.model.name)
    }
  end

  ## Timers

  defp start_timer(_of, :infinity), do: nil
  defp start_timer(of, timeout), do: Process.send_after(self(), {:timeout, of}, timeout)

  defp cancel_timer(nil), do: :ok
  defp cancel_timer(timer), do: _left = Process.cancel_timer(timer)
end
