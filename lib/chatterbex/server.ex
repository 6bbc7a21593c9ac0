defmodule Chatterbex.Server do
  @moduledoc false
  # One model: loads it, queues requests, hands them to the model thread and answers their callers.
  #
  # A request is in `requests` until its caller has an answer. Its id is in `queue` while it waits, and in
  # `running` from its submission until the engine's last event about it: a request that was given up by its
  # caller still takes its place in the batch until the model has let go of it.

  use GenServer, restart: :permanent, shutdown: 5_000

  require Logger

  alias Chatterbex.{Audio, Device, Error, Model, Options, Runtime, Telemetry, Text.Check}

  # A model that failed to load is tried again by the next request, but not by every one of a flood.
  @retry_after 1_000

  # The metadata that models report; under other names it keeps its string keys.
  @metadata Map.new(
              ~w(model voice seed speed sentences tokens generation_ms rtf finish_reason language)a,
              &{Atom.to_string(&1), &1}
            )

  defmodule Request do
    @moduledoc false
    # `ref` is an alias of the caller's: what is sent to it reaches the caller only while it still listens.
    @enforce_keys [:id, :ref, :monitor, :timer, :queued_at, :text, :options, :stream?]
    defstruct [:id, :ref, :monitor, :timer, :queued_at, :text, :options, :stream?]
  end

  @spec start_link(keyword) :: GenServer.on_start() | {:error, Error.t()}
  def start_link(options) do
    with {:ok, options} <- Options.validate(:server, with_configured(options)),
         {:ok, model} <- Model.fetch(options.model) do
      GenServer.start_link(__MODULE__, {options, model}, start_options(options.name))
    end
  end

  @doc """
  Asks for a text to be spoken. The server answers the calling process with messages, in this order:

    * `{ref, {:chunk, audio}}`, only with `stream?: true`, as many as there are
    * `{ref, {:done, audio}}` with the whole audio (without samples if it was streamed), or `{ref, {:error, error}}`
    * `{:DOWN, ref, :process, _, reason}` if the server ends before that

  The request is cancelled when the calling process ends, and by `release/2`.
  """
  @spec request(GenServer.server(), String.t(), map, stream?: boolean) ::
          {:ok, reference} | {:error, Error.t()}
  def request(server, text, options, stream?: stream?) do
    case GenServer.whereis(server) do
      nil ->
        {:error, not_running(server)}

      process ->
        ref = :erlang.monitor(:process, process, alias: :explicit_unalias)
        GenServer.cast(process, {:speak, self(), ref, text, options, stream?})
        {:ok, ref}
    end
  rescue
    # What the VM raises where another node is named and this one is not distributed.
    ArgumentError -> {:error, ended(server, :noconnection)}
  end

  @doc """
  Forgets a request: it is cancelled unless it is done, and none of its messages is left or still to come.
  """
  @spec release(GenServer.server(), reference) :: :ok
  def release(server, ref) do
    :erlang.unalias(ref)
    Process.demonitor(ref, [:flush])
    GenServer.cast(server, {:release, ref})
    flush(ref)
  end

  defp flush(ref) do
    receive do
      {^ref, _message} -> flush(ref)
    after
      0 -> :ok
    end
  end

  @spec generate(GenServer.server(), String.t(), map) :: {:ok, Audio.t()} | {:error, Error.t()}
  def generate(server, text, options) do
    with {:ok, ref} <- request(server, text, options, stream?: false) do
      # The server's timer bounds this wait, and the monitor the server's end.
      answer =
        receive do
          {^ref, {:done, audio}} -> {:ok, audio}
          {^ref, {:error, error}} -> {:error, error}
          {:DOWN, ^ref, :process, _process, reason} -> {:error, ended(server, reason)}
        end

      release(server, ref)
      answer
    end
  end

  @spec await_ready(GenServer.server(), timeout) :: :ok | {:error, Error.t()}
  def await_ready(server, timeout), do: call(server, :await_ready, timeout)

  @spec info(GenServer.server()) :: {:ok, map} | {:error, Error.t()}
  def info(server), do: call(server, :info, :infinity)

  @spec stop(GenServer.server(), timeout) :: :ok | {:error, Error.t()}
  def stop(server, timeout) do
    GenServer.stop(server, :normal, timeout)
  catch
    :exit, reason -> {:error, exit_error(server, reason)}
  end

  # The server answers every call in bounded time; what is left to catch is its end.
  defp call(server, request, timeout) do
    GenServer.call(server, request, timeout)
  catch
    :exit, reason -> {:error, exit_error(server, reason)}
  end

  defp exit_error(server, {:timeout, _call}),
    do: Error.new(:timeout, "#{inspect(server)} did not answer in time")

  defp exit_error(server, {{:nodedown, _node}, _call}), do: ended(server, :noconnection)
  defp exit_error(server, {reason, {_module, _function, _arguments}}), do: ended(server, reason)
  defp exit_error(server, reason), do: ended(server, reason)

  defp ended(server, :noproc), do: not_running(server)

  defp ended(server, :noconnection),
    do: Error.new(:engine_crashed, "the node of #{inspect(server)} is not connected")

  defp ended(server, :calling_self),
    do: Error.new(:invalid_option, "#{inspect(server)} is the calling process itself")

  defp ended(server, reason)
       when reason in [:normal, :shutdown] or (is_tuple(reason) and elem(reason, 0) == :shutdown),
       do: Error.new(:cancelled, "#{inspect(server)} was stopped before it answered")

  defp ended(server, reason) do
    Error.new(
      :engine_crashed,
      "#{inspect(server)} ended before it answered: #{Options.Schema.show(reason)}",
      %{
        exit: reason
      }
    )
  end

  defp not_running(server) do
    Error.new(
      :invalid_option,
      "no server runs as #{inspect(server)}. Start it under your supervisor: " <>
        "children = [{Chatterbex, name: #{inspect(server)}}]",
      %{server: server}
    )
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
      requests: %{},
      queue: :queue.new(),
      waiting: 0,
      running: MapSet.new(),
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

  @impl true
  def handle_cast({:speak, caller, ref, text, options, stream?}, state) do
    with {:ok, text} <- acceptable(text, options, state),
         {:ok, state} <- working(state),
         :ok <- room(state) do
      {:noreply, state |> enqueue(caller, ref, text, options, stream?) |> dispatch()}
    else
      {:error, error} ->
        tell(ref, {:error, error})
        {:noreply, state}
    end
  end

  def handle_cast({:release, ref}, state) do
    case Enum.find(state.requests, fn {_id, request} -> request.ref == ref end) do
      {id, _request} -> {:noreply, give_up(state, id, nil)}
      nil -> {:noreply, state}
    end
  end

  @impl true
  def handle_info({:chatterbex_event, id, event, payload}, state),
    do: {:noreply, event(event, id, payload, state)}

  def handle_info({:timeout, id}, state) do
    error = fn request ->
      waited = System.monotonic_time() - request.queued_at
      ms = System.convert_time_unit(waited, :native, :millisecond)
      where = if MapSet.member?(state.running, id), do: "being spoken", else: "waiting for its turn"

      Error.new(:timeout, "no audio after #{ms} ms: the request was still #{where}. Raise :timeout.", %{
        waited_ms: ms
      })
    end

    {:noreply, give_up(state, id, error)}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case Enum.find(state.requests, fn {_id, request} -> request.monitor == monitor end) do
      {id, _request} -> {:noreply, give_up(state, id, nil)}
      nil -> {:noreply, state}
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

  def handle_info(_late_or_foreign, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    error = Error.new(:cancelled, "the server #{inspect(state.name)} was stopped before the request was done")
    state |> fail_all(error) |> unload()
  end

  ## Loading

  defp load(state) do
    %{options: options, model: model} = state
    started = System.monotonic_time()

    metadata = %{server: state.name, model: model.name, device: options.device}
    Telemetry.execute([:chatterbex, :model, :load, :start], %{system_time: System.system_time()}, metadata)

    model_id = Runtime.new_id()
    state = %{state | status: :loading, load: %{started: started, metadata: metadata, timer: nil}}

    python = %{home: options.home, threads: options.threads, timeout: options.load_timeout}

    with {:ok, _python} <- Runtime.start_python(python),
         :ok <- Runtime.submit(load_command(model_id, options, model)) do
      Runtime.watch(self(), model_id)
      timer = start_timer({:load_timeout, model_id}, options.load_timeout)
      %{state | model_id: model_id, load: %{state.load | timer: timer}}
    else
      {:error, error} -> load_failed(state, error)
    end
  end

  defp load_command(model_id, options, model) do
    load_options =
      Map.merge(options.model_options, %{
        "device" => Device.to_string(options.device),
        "fallback" => options.fallback,
        "threads" => options.threads,
        "max_batch" => options.max_batch
      })

    %{"op" => "load", "id" => model_id, "model" => Atom.to_string(model.name), "options" => load_options}
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
        running: MapSet.new()
    }
  end

  defp working(%{status: {:failed, error, at}} = state) do
    if retry?(error, at), do: state |> load() |> loading_or_error(), else: {:error, error}
  end

  defp working(state), do: {:ok, state}

  defp loading_or_error(%{status: {:failed, error, _at}}), do: {:error, error}
  defp loading_or_error(state), do: {:ok, state}

  # What is set up may have changed since, and looking costs nothing.
  defp retry?(%{reason: :not_set_up}, _at), do: true
  defp retry?(_error, at), do: System.monotonic_time(:millisecond) - at >= @retry_after

  defp unload(%{model_id: nil} = state), do: state

  defp unload(state) do
    _ok_or_crashed =
      Runtime.submit(%{"op" => "unload", "id" => Runtime.new_id(), "model_id" => state.model_id})

    %{state | model_id: nil}
  end

  ## Requests

  defp acceptable(text, options, state) do
    with :ok <- Check.fits(String.length(text), state.options.max_characters),
         :ok <- Options.supported(options, state.model) do
      Check.readable(text, state.model)
    end
  end

  defp room(%{waiting: waiting, options: %{max_queue: max}} = state) do
    if waiting < max or (MapSet.size(state.running) < state.max_batch and state.status == :ready) do
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

  defp enqueue(state, caller, ref, text, options, stream?) do
    id = Runtime.new_id()

    request = %Request{
      id: id,
      ref: ref,
      stream?: stream?,
      monitor: Process.monitor(caller),
      timer: start_timer({:timeout, id}, options.timeout || state.options.timeout),
      queued_at: System.monotonic_time(),
      text: text,
      options: %{options | seed: options.seed || :rand.uniform(0x100000000) - 1}
    }

    %{
      state
      | requests: Map.put(state.requests, id, request),
        queue: :queue.in(id, state.queue),
        waiting: state.waiting + 1
    }
  end

  defp dispatch(%{status: :ready} = state) do
    with true <- MapSet.size(state.running) < state.max_batch,
         {{:value, id}, queue} <- :queue.out(state.queue) do
      %{state | queue: queue} |> submit(Map.get(state.requests, id)) |> dispatch()
    else
      _full_or_empty -> state
    end
  end

  defp dispatch(state), do: state

  # Given up while it waited.
  defp submit(state, nil), do: state

  defp submit(state, request) do
    state = %{state | waiting: state.waiting - 1}

    case Runtime.submit(generate_command(request, state)) do
      :ok -> %{state | running: MapSet.put(state.running, request.id)}
      {:error, error} -> answer(state, request.id, {:error, error})
    end
  end

  defp generate_command(request, state) do
    options =
      for {name, value} <- request.options, name not in [:server, :timeout], not is_nil(value), into: %{} do
        {Atom.to_string(name), value}
      end

    %{
      "op" => "generate",
      "id" => request.id,
      "model_id" => state.model_id,
      "text" => request.text,
      "stream" => request.stream?,
      "options" => options
    }
  end

  # `error` is nil where nobody is left to be answered.
  defp give_up(state, id, error) do
    case state.requests do
      %{^id => request} ->
        if MapSet.member?(state.running, id), do: Runtime.cancel(id)
        state = if MapSet.member?(state.running, id), do: state, else: %{state | waiting: state.waiting - 1}
        if error, do: answer(state, id, {:error, error.(request)}), else: forget(state, request)

      _answered ->
        state
    end
  end

  defp answer(state, id, answer) do
    case state.requests do
      %{^id => request} ->
        tell(request.ref, answer)
        forget(state, request)

      _given_up ->
        state
    end
  end

  defp tell(ref, message), do: send(ref, {ref, message})

  defp forget(state, request) do
    Process.demonitor(request.monitor, [:flush])
    cancel_timer(request.timer)
    %{state | requests: Map.delete(state.requests, request.id)}
  end

  defp fail_all(state, error) do
    state = Enum.reduce(Map.keys(state.requests), state, &answer(&2, &1, {:error, error}))
    Enum.each(state.ready_waiters, &GenServer.reply(&1, {:error, error}))
    %{state | queue: :queue.new(), waiting: 0, ready_waiters: []}
  end

  ## What the model thread says

  defp event("loaded", id, info, %{model_id: id} = state) do
    cancel_timer(state.load.timer)
    Telemetry.stop([:chatterbex, :model, :load], state.load.started, %{}, state.load.metadata)
    Enum.each(state.ready_waiters, &GenServer.reply(&1, :ok))

    dispatch(%{
      state
      | status: :ready,
        loaded: info,
        max_batch: state.options.max_batch || info["max_batch"] || 1,
        ready_waiters: []
    })
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
    Logger.warning("chatterbex: #{inspect(state.name)} fell back to the CPU: #{payload["reason"]}")

    Telemetry.execute([:chatterbex, :device, :fallback], %{system_time: System.system_time()}, %{
      server: state.name,
      model: state.model.name,
      from: payload["from"],
      to: payload["to"],
      reason: payload["reason"]
    })

    device =
      Map.merge(state.loaded["device"] || %{}, %{"actual" => payload["to"], "reason" => payload["reason"]})

    %{state | loaded: Map.put(state.loaded, "device", device)}
  end

  defp event("started", id, _payload, state) do
    with %{^id => request} <- state.requests do
      duration = System.monotonic_time() - request.queued_at
      metadata = %{server: state.name, model: state.model.name}
      Telemetry.execute([:chatterbex, :queue, :wait], %{duration: duration, waiting: state.waiting}, metadata)
    end

    state
  end

  defp event("chunk", id, payload, state) do
    with %{^id => request} <- state.requests, do: tell(request.ref, {:chunk, audio(payload, state)})
    state
  end

  defp event("done", id, payload, state), do: finish(state, id, {:done, audio(payload, state)})
  defp event("failed", id, payload, state), do: finish(state, id, {:error, Error.from_native(payload)})

  defp event("cancelled", id, _payload, state),
    do: finish(state, id, {:error, Error.new(:cancelled, "the request was cancelled")})

  defp event(_other, _id, _payload, state), do: state

  defp finish(state, id, answer) do
    if MapSet.member?(state.running, id) do
      state |> answer(id, answer) |> Map.update!(:running, &MapSet.delete(&1, id)) |> dispatch()
    else
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
        running: MapSet.size(state.running),
        max_queue: state.options.max_queue,
        max_batch: state.max_batch
      },
      load: Map.get(state.loaded, "load", %{}),
      memory: Map.get(state.loaded, "memory", %{}),
      components: Map.get(state.loaded, "components", %{}),
      versions: Map.get(state.loaded, "versions", %{})
    }
  end

  defp status({:failed, _error, _at}), do: :failed
  defp status(status), do: status

  defp failure({:failed, error, _at}), do: error
  defp failure(_status), do: nil

  defp device(%{loaded: %{"device" => %{"actual" => actual} = device}} = state) do
    {:ok, actual} = Device.parse(actual)
    %{requested: state.options.device, actual: actual, reason: device["reason"]}
  end

  defp device(state), do: %{requested: state.options.device, actual: nil, reason: nil}

  ## Timers

  defp start_timer(_message, :infinity), do: nil
  defp start_timer(message, timeout), do: Process.send_after(self(), message, timeout)

  defp cancel_timer(nil), do: :ok
  defp cancel_timer(timer), do: Process.cancel_timer(timer)
end
