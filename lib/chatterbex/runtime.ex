defmodule Chatterbex.Runtime do
  @moduledoc false
  # The one Python of this VM: started on the first need, stopped with the application.
  #
  # It also outlives the servers: when one crashes, this process removes its model from memory.

  use GenServer

  require Logger

  alias Chatterbex.{Configuration, Error, Model, Native, Python}

  # The model thread ends between two steps; a step of a small model takes a few hundred milliseconds.
  @stop_timeout 2_500

  # Variables that libraries below read from the C environment, where System.put_env/2 does not reach.
  @passed ~w(HF_ HUGGINGFACE_ TRANSFORMERS_ PYTORCH_ TORCH_ CUDA_ NVIDIA_ OMP_ MKL_ OPENBLAS_ ORT_ XDG_ CHATTERBEX_)

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Starts Python, unless it runs already. `options` has `:home` (`:any` for that of the Python that runs), `:threads`,
  `:timeout` (milliseconds) and `:profiles`, what must be installed.
  """
  @spec start_python(map) :: {:ok, map} | {:error, Error.t()}
  def start_python(options) do
    GenServer.call(__MODULE__, {:start_python, options}, :infinity)
  catch
    :exit, _reason ->
      {:error, Error.new(:not_running, "the application :chatterbex is not running or is stopping")}
  end

  @doc """
  Removes the model from memory when `server` ends.
  """
  @spec watch(pid, pos_integer) :: :ok
  def watch(server, model_id), do: GenServer.cast(__MODULE__, {:watch, server, model_id})

  @doc """
  Gives a command to the model thread; its events come to the calling process.
  """
  @spec submit(map) :: :ok | {:error, Error.t()}
  def submit(command) do
    with {:error, error} <- Native.submit(command, self()), do: {:error, Error.from_native(error)}
  end

  @doc """
  Gives a command that needs no model to the model thread, and waits for its answer.
  """
  @spec ask(map, timeout) :: {:ok, map} | {:error, Error.t()}
  def ask(command, timeout) do
    # In a separate process, so that a late answer reaches nobody.
    task = Task.async(fn -> answer(Map.put(command, "id", new_id())) end)

    with nil <- Task.yield(task, timeout) || Task.shutdown(task, :brutal_kill) do
      {:error, Error.new(:timeout, "the model thread did not answer within #{timeout} ms")}
    else
      {:ok, answer} ->
        answer

      {:exit, reason} ->
        {:error, Error.new(:engine_crashed, "asking the model thread failed: #{inspect(reason)}")}
    end
  end

  defp answer(%{"id" => id} = command) do
    with :ok <- submit(command) do
      receive do
        {:chatterbex_event, ^id, "done", payload} -> {:ok, payload}
        {:chatterbex_event, ^id, _failed_or_cancelled, payload} -> {:error, Error.from_native(payload)}
      end
    end
  end

  @doc """
  Cancels a command or a request. Running work ends after the current step.
  """
  @spec cancel(pos_integer) :: :ok
  def cancel(id) do
    _ok_or_not_started = Native.cancel(id)
    :ok
  end

  @doc """
  A number that names one command, request or model.
  """
  @spec new_id() :: pos_integer
  def new_id, do: System.unique_integer([:positive, :monotonic])

  @impl true
  def init([]) do
    Process.flag(:trap_exit, true)
    {:ok, %{python: nil, models: %{}}}
  end

  @impl true
  def handle_call({:start_python, %{home: :any} = options}, from, state) do
    options = %{options | home: state.python && state.python.home}
    handle_call({:start_python, options}, from, state)
  end

  def handle_call({:start_python, options}, _from, %{python: nil} = state) do
    case start(options) do
      {:ok, python} -> {:reply, {:ok, python}, %{state | python: python}}
      {:error, error} -> {:reply, {:error, error}, state}
    end
  end

  def handle_call({:start_python, options}, _from, %{python: python} = state) do
    case Python.find(where(options)) do
      {:ok, %{program: program}} when program != python.program ->
        {:reply, {:error, other_python(program, python.program)}, state}

      {:ok, _same} ->
        {:reply, {:ok, python}, state}

      {:error, error} ->
        {:reply, {:error, error}, state}
    end
  end

  @impl true
  def handle_cast({:watch, server, model_id}, state) do
    # A server has one model at a time, and may load it many times.
    unless is_map_key(state.models, server), do: Process.monitor(server)
    {:noreply, put_in(state.models[server], model_id)}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, server, _reason}, state) do
    {model_id, models} = Map.pop(state.models, server)
    if model_id, do: unload(model_id)
    {:noreply, %{state | models: models}}
  end

  def handle_info({:chatterbex_log, level, message}, state) do
    log(level, message)
    {:noreply, state}
  end

  def handle_info(_unload_events_and_exits, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{python: nil}), do: :ok

  def terminate(_reason, _state) do
    case Native.stop(@stop_timeout) do
      :ok -> :ok
      {:error, {_reason, message, _details}} -> Logger.warning("chatterbex: #{message}")
    end
  end

  defp start(options) do
    with {:ok, python} <- Python.find(where(options)),
         {:ok, _version} <- native(Native.LibPython.open(python.libpython)),
         :ok <- native(Native.start(config(python, options), self())) do
      {:ok, python}
    end
  end

  defp config(python, options) do
    models = Enum.filter(Model.all(), & &1.python)

    %{
      "program" => python.program,
      "python_path" => [
        priv("python") | models |> Enum.map(& &1.path) |> Enum.reject(&is_nil/1) |> Enum.uniq()
      ],
      "env" => environment(),
      "threads" => options[:threads],
      "timeout_ms" => milliseconds(options[:timeout]),
      "extra_models" => Map.new(models, &{Atom.to_string(&1.name), &1.python})
    }
  end

  defp environment do
    System.get_env()
    |> Map.filter(fn {name, value} -> String.starts_with?(name, @passed) and String.valid?(value) end)
    |> Map.merge(Configuration.environment())
  end

  defp milliseconds(:infinity), do: 0xFFFFFFFF
  defp milliseconds(timeout), do: timeout

  defp where(options), do: for(name <- [:home, :profiles], value = options[name], do: {name, value})

  defp priv(folder), do: Application.app_dir(:chatterbex, Path.join("priv", folder))

  defp unload(model_id),
    do: Native.submit(%{"op" => "unload", "id" => new_id(), "model_id" => model_id}, self())

  defp native(:ok), do: :ok
  defp native({:ok, value}), do: {:ok, value}
  defp native({:error, %Error{} = error}), do: {:error, error}
  defp native({:error, error}), do: {:error, Error.from_native(error)}

  defp other_python(wanted, running) do
    Error.new(
      :invalid_option,
      "this VM already runs the Python of #{running}, and a VM can run only one: #{wanted} would be a second. " <>
        "Use one :home for all servers of a VM.",
      %{running: running, wanted: wanted}
    )
  end

  defp log("debug", message), do: Logger.debug(message)
  defp log("info", message), do: Logger.info(message)
  defp log("warning", message), do: Logger.warning(message)
  defp log(_error, message), do: Logger.error(message)
end
