defmodule Chatterbex.Server do
  @moduledoc false
  # One model: loads it, gives its requests their turns, hands their pieces to the model thread and passes on
  # what comes of them. `Chatterbex.Client` is the other side, in the calling process.
  #
  # A request is in `requests` until its caller releases it, ends, or gets an error. A piece that the model has
  # is in `running` until the engine's last event about it: one that was given up by its caller still takes its
  # place in the batch until the model has let go of it.

  use GenServer, restart: :permanent, shutdown: 5_000

  require Logger

  alias Chatterbex.{Audio, Device, Error, Model, Options, Runtime, Telemetry}
  alias Chatterbex.Server.{Loading, Request, Turns}

  # A model that failed to load is tried again by the next request, but not by every one of a flood.
  @retry_after 1_000

  # The metadata that models report; under other names it keeps its string keys.
  @metadata Map.new(
              ~w(model voice seed speed sentence sentences tokens text_tokens chunk chunks generation_ms rtf
                 finish_reason language seconds retries watermarked)a,
              &{Atom.to_string(&1), &1}
            )

  @spec start_link(keyword) :: GenServer.on_start() | {:error, Error.t()}
  def start_link(options) do
    with {:ok, options} <- Options.validate(:server, with_configured(options)),
         {:ok, model} <- Model.fetch(options.model) do
      GenServer.start_link(__MODULE__, {options, model}, start_options(options.name))
    end
  end

  defp with_configured(options) when is_list(options) do
    names = Keyword.keys(Options.Schema.fetch(:server)) -- [:name]
    configured = :chatterbex |> Application.get_all_env() |> Keyword.take(names)
    if Keyword.keyword?(options), do: Keyword.merge(configured, options), else: options
  end

  defp with_configured(options), do: options

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
      load: nil,
      loaded: %{},
      max_batch: 1,
      parallel: 1,
      requests: %{},
      monitors: %{},
      turns: Turns.new(),
      waiting: 0,
      running: %{},
      calls: %{},
      ready_waiters: []
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

  def handle_call(:info, _from, state), do: {:reply, {:ok, describe(state)}, state}

  # What a caller has to know to cut its text and check its options.
  def handle_call(:about, _from, state) do
    about = %{
      model: state.model,
      parallel: state.parallel,
      language_pack: state.options.language_pack,
      voices: state.options.voices,
      node: node(),
      max_characters: state.options.max_characters,
      timeout: state.options.timeout
    }

    {:reply, {:ok, about}, state}
  end

  # A function of the model; the answer is a map, or an error.
  def handle_call({:call, function, arguments}, from, state) do
    with {:ok, state} <- working(state) do
      id = Runtime.new_id()
      call = {id, from, function, arguments}

      if state.status == :ready,
        do: {:noreply, submit_call(call, state)},
        else: {:noreply, %{state | calls: Map.put(state.calls, id, call)}}
    else
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  @impl true
  def handle_cast({:open, caller, ref, settings, pieces}, state) do
    with {:ok, state} <- working(state), :ok <- room(state) do
      {:noreply, state |> open(caller, ref, settings) |> more(ref, pieces) |> dispatch()}
    else
      {:error, error} ->
        tell(ref, {:error, error})
        {:noreply, state}
    end
  end

  def handle_cast({:more, ref, pieces}, state), do: {:noreply, state |> more(ref, pieces) |> dispatch()}
  def handle_cast({:release, ref}, state), do: {:noreply, state |> give_up(ref) |> dispatch()}

  @impl true
  def handle_info({:chatterbex_event, id, event, payload}, state),
    do: {:noreply, event(event, id, payload, state)}

  def handle_info({:prepared, task, result}, %{load: %{task: task}, status: :loading} = state) do
    case result do
      {:ok, folder} -> {:noreply, submit_load(folder, state)}
      {:error, error} -> {:noreply, load_failed(state, error)}
    end
  end

  def handle_info({:timeout, ref}, state) do
    case state.requests do
      %{^ref => request} -> {:noreply, state |> fail(request, timed_out(request)) |> dispatch()}
      _done -> {:noreply, state}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case state.monitors do
      %{^monitor => ref} -> {:noreply, state |> give_up(ref) |> dispatch()}
      _released -> {:noreply, state}
    end
  end

  def handle_info({:load_timeout, model_id}, %{status: :loading, model_id: model_id} = state) do
    error =
      Error.new(
        :timeout,
        "the model #{inspect(state.model.name)} was not ready within #{state.options.load_timeout} ms. Raise :load_timeout."
      )

    {:noreply, load_failed(unload(state), error)}
  end

  # The task that prepares a load answers before it ends; where it did not, it crashed.
  def handle_info({:EXIT, task, reason}, %{load: %{task: task}, status: :loading} = state)
      when reason != :normal do
    error = Error.new(:engine_crashed, "preparing the model crashed: #{Options.Schema.show(reason)}")
    {:noreply, load_failed(state, error)}
  end

  def handle_info(_late_or_foreign, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    error = Error.new(:cancelled, "the server #{inspect(state.name)} was stopped before the request was done")
    state |> fail_all(error) |> unload()
  end

  ## Loading

  defp load(state) do
    %{options: options, model: model} = state
    metadata = %{server: state.name, model: model.name, device: options.device}
    Telemetry.execute([:chatterbex, :model, :load, :start], %{system_time: System.system_time()}, metadata)

    load = %{
      started: System.monotonic_time(),
      metadata: metadata,
      timer: nil,
      task: Loading.prepare(model, options)
    }

    %{state | status: :loading, load: load}
  end

  defp submit_load(folder, state) do
    model_id = Runtime.new_id()

    case Runtime.submit(Loading.command(model_id, state.model, state.options, folder)) do
      :ok ->
        Runtime.watch(self(), model_id)
        timer = start_timer({:load_timeout, model_id}, state.options.load_timeout)
        %{state | model_id: model_id, load: %{state.load | timer: timer, task: nil}}

      {:error, error} ->
        load_failed(state, error)
    end
  end

  defp load_failed(state, error) do
    Logger.error("chatterbex: #{inspect(state.name)} has no model: #{error.message}")
    Telemetry.exception([:chatterbex, :model, :load], state.load.started, state.load.metadata, error)
    cancel_timer(state.load.timer)
    failed(state, error)
  end

  # The next request tries to load again.
  defp failed(state, error) do
    state = fail_all(state, error)

    %{
      state
      | status: {:failed, error, System.monotonic_time(:millisecond)},
        model_id: nil,
        running: %{}
    }
  end

  defp working(%{status: {:failed, error, at}} = state) do
    if retry?(error, at), do: {:ok, load(state)}, else: {:error, error}
  end

  defp working(state), do: {:ok, state}

  # What is set up may have changed since, and looking costs nothing.
  defp retry?(%{reason: reason}, _at) when reason in [:not_set_up, :model_files_missing], do: true
  defp retry?(_error, at), do: System.monotonic_time(:millisecond) - at >= @retry_after

  defp unload(%{model_id: nil} = state), do: state

  defp unload(state) do
    _ok_or_crashed =
      Runtime.submit(%{"op" => "unload", "id" => Runtime.new_id(), "model_id" => state.model_id})

    %{state | model_id: nil}
  end

  ## Requests

  defp room(%{waiting: waiting, options: %{max_queue: max}} = state) do
    if waiting < max or (map_size(state.running) < state.max_batch and state.status == :ready) do
      :ok
    else
      {:error,
       Error.new(
         :overloaded,
         "the queue of #{inspect(state.name)} is full: #{waiting} requests are waiting. " <>
           "Try again later, or raise :max_queue.",
         %{waiting: waiting, max_queue: max}
       )}
    end
  end

  defp open(state, caller, ref, settings) do
    request = %Request{
      ref: ref,
      monitor: Process.monitor(caller),
      timer: start_timer({:timeout, ref}, settings.timeout),
      opened_at: System.monotonic_time(),
      priority: settings.priority,
      options: settings.options
    }

    %{
      state
      | requests: Map.put(state.requests, ref, request),
        monitors: Map.put(state.monitors, request.monitor, ref),
        waiting: state.waiting + 1
    }
  end

  defp more(state, ref, pieces) do
    case state.requests do
      %{^ref => request} -> line_up(state, Request.add(request, pieces))
      _given_up -> state
    end
  end

  # Keeps a request, and gives it a place in the line if it may have a turn and has none.
  defp line_up(state, request) do
    if not request.in_line and Request.ready?(request, state.parallel) do
      request = %{request | in_line: true}
      state = %{state | turns: Turns.add(state.turns, request.ref, request.priority)}
      put_request(state, request)
    else
      put_request(state, request)
    end
  end

  defp put_request(state, request),
    do: %{state | requests: Map.put(state.requests, request.ref, request)}

  defp dispatch(%{status: :ready} = state) do
    with true <- map_size(state.running) < state.max_batch, {ref, turns} <- Turns.take(state.turns) do
      %{state | turns: turns} |> turn(Map.get(state.requests, ref)) |> dispatch()
    else
      _full_or_none -> state
    end
  end

  defp dispatch(state), do: state

  # Given up while it waited.
  defp turn(state, nil), do: state

  defp turn(state, request) do
    {{:value, piece}, pieces} = :queue.out(request.pieces)
    id = Runtime.new_id()

    case Runtime.submit(generate_command(id, piece, request, state)) do
      :ok ->
        running = Map.put(request.running, id, piece.number)
        state = %{state | running: Map.put(state.running, id, request.ref)}
        state |> started(request) |> line_up(%{request | pieces: pieces, running: running} |> in_turn())

      {:error, error} ->
        fail(state, request, error)
    end
  end

  defp in_turn(request), do: %{request | started: true, in_line: false}

  defp started(state, %{started: true}), do: state
  defp started(state, _request), do: %{state | waiting: state.waiting - 1}

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
    case state.requests do
      %{^ref => request} -> forget(state, request)
      _answered -> state
    end
  end

  defp fail(state, request, error) do
    tell(request.ref, {:error, error})
    forget(state, request)
  end

  defp forget(state, request) do
    Process.demonitor(request.monitor, [:flush])
    cancel_timer(request.timer)
    Enum.each(request.running, fn {id, _number} -> Runtime.cancel(id) end)
    state = started(state, request)

    %{
      state
      | requests: Map.delete(state.requests, request.ref),
        monitors: Map.delete(state.monitors, request.monitor)
    }
  end

  defp fail_all(state, error) do
    state = Enum.reduce(Map.values(state.requests), state, &fail(&2, &1, error))
    Enum.each(state.ready_waiters, &GenServer.reply(&1, {:error, error}))
    Enum.each(state.calls, fn {_id, {_, from, _, _}} -> GenServer.reply(from, {:error, error}) end)
    %{state | turns: Turns.new(), waiting: 0, ready_waiters: [], calls: %{}}
  end

  defp timed_out(request) do
    waited = System.monotonic_time() - request.opened_at
    ms = System.convert_time_unit(waited, :native, :millisecond)
    where = if request.started, do: "being spoken", else: "waiting for its turn"

    Error.new(:timeout, "no audio after #{ms} ms: the request was still #{where}. Raise :timeout.", %{
      waited_ms: ms
    })
  end

  defp tell(ref, message), do: send(ref, {ref, message})

  ## Calls

  defp submit_call({id, from, function, arguments} = call, state) do
    command = %{
      "op" => "call",
      "id" => id,
      "model_id" => state.model_id,
      "function" => function,
      "arguments" => arguments
    }

    case Runtime.submit(command) do
      :ok ->
        %{state | calls: Map.put(state.calls, id, call)}

      {:error, error} ->
        GenServer.reply(from, {:error, error})
        %{state | calls: Map.delete(state.calls, id)}
    end
  end

  defp answer_call(state, id, answer) do
    {{_id, from, _function, _arguments}, calls} = Map.pop!(state.calls, id)
    if from, do: GenServer.reply(from, answer)
    %{state | calls: calls}
  end

  ## What the model thread says

  defp event("loaded", id, info, %{model_id: id} = state) do
    cancel_timer(state.load.timer)
    Telemetry.stop([:chatterbex, :model, :load], state.load.started, %{}, state.load.metadata)
    Enum.each(state.ready_waiters, &GenServer.reply(&1, :ok))

    state = %{
      state
      | status: :ready,
        loaded: info,
        max_batch: state.options.max_batch || info["max_batch"] || 1,
        parallel: info["parallel"] || 1,
        ready_waiters: []
    }

    state.calls |> Map.values() |> Enum.reduce(state, &submit_call/2) |> dispatch()
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
      Map.merge(state.loaded["device"] || %{}, %{"actual" => payload["to"], "reason" => payload["reason"]})

    components = Map.new(state.loaded["components"] || %{}, fn {name, _device} -> {name, payload["to"]} end)
    %{state | loaded: Map.merge(state.loaded, %{"device" => device, "components" => components})}
  end

  defp event("started", id, _payload, state) do
    with %{^id => ref} <- state.running, %{^ref => %{opened_at: opened_at} = request} <- state.requests do
      if map_size(request.running) == 1 and Map.get(request.running, id) == 0 do
        measurements = %{
          duration: System.monotonic_time() - opened_at,
          waiting: state.waiting,
          running: map_size(state.running)
        }

        Telemetry.execute([:chatterbex, :queue, :wait], measurements, %{
          server: state.name,
          model: state.model.name,
          priority: request.priority
        })
      end
    end

    state
  end

  defp event("chunk", id, payload, state) do
    with %{^id => ref} <- state.running, %{^ref => %{running: %{^id => number}}} <- state.requests do
      tell(ref, {:chunk, number, audio(payload, state)})
    end

    state
  end

  defp event(name, id, payload, %{calls: calls} = state) when is_map_key(calls, id) do
    case name do
      "done" -> answer_call(state, id, {:ok, payload})
      "failed" -> answer_call(state, id, {:error, Error.from_native(payload)})
      "cancelled" -> answer_call(state, id, {:error, cancelled()})
      _other -> state
    end
  end

  defp event("done", id, payload, state),
    do: finish(state, id, fn -> {:done, audio(payload, state)} end)

  defp event("failed", id, payload, state), do: finish(state, id, fn -> Error.from_native(payload) end)
  defp event("cancelled", id, _payload, state), do: finish(state, id, &cancelled/0)
  defp event(_other, _id, _payload, state), do: state

  defp cancelled, do: Error.new(:cancelled, "the request was cancelled")

  # The model has let go of a piece.
  defp finish(state, id, outcome) do
    case Map.pop(state.running, id) do
      {nil, _running} -> state
      {ref, running} -> %{state | running: running} |> finish_piece(ref, id, outcome) |> dispatch()
    end
  end

  defp finish_piece(state, ref, id, outcome) do
    case state.requests do
      %{^ref => %{running: %{^id => number}} = request} ->
        request = %{request | running: Map.delete(request.running, id)}

        case outcome.() do
          {:done, audio} ->
            tell(ref, {:done, number, audio})
            line_up(state, request)

          %Error{} = error ->
            fail(state, request, error)
        end

      _given_up ->
        state
    end
  end

  defp audio(%{"samples" => samples} = payload, state) do
    metadata =
      for {key, value} <- payload["metadata"] || %{}, into: %{}, do: {Map.get(@metadata, key, key), value}

    %Audio{
      samples: samples,
      sample_rate: state.loaded["sample_rate"] || state.model.sample_rate,
      metadata: Map.put(metadata, :model, state.model.name)
    }
  end

  ## What users are told

  defp describe(state) do
    %{
      server: state.name,
      model: state.model.name,
      status: status(state.status),
      error: failure(state.status),
      device: device(state),
      queue: %{
        waiting: state.waiting,
        running: map_size(state.running),
        max_queue: state.options.max_queue,
        max_batch: state.max_batch
      },
      load: Map.get(state.loaded, "load", %{}),
      memory: Map.get(state.loaded, "memory", %{}),
      components: Map.get(state.loaded, "components", %{}),
      versions: Map.get(state.loaded, "versions", %{}),
      checkpoint: state.loaded["checkpoint"]
    }
  end

  defp status({:failed, _error, _at}), do: :failed
  defp status(status), do: status

  defp failure({:failed, error, _at}), do: error
  defp failure(_status), do: nil

  defp device(%{loaded: %{"device" => %{"actual" => actual} = device}} = state) do
    {:ok, actual} = Device.parse(actual)
    %{requested: state.options.device, actual: actual, reason: device["reason"], warning: device["warning"]}
  end

  defp device(state), do: %{requested: state.options.device, actual: nil, reason: nil, warning: nil}

  ## Timers

  defp start_timer(_message, :infinity), do: nil
  defp start_timer(message, timeout), do: Process.send_after(self(), message, timeout)

  defp cancel_timer(nil), do: :ok
  defp cancel_timer(timer), do: Process.cancel_timer(timer)
end
