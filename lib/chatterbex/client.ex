defmodule Chatterbex.Client do
  @moduledoc false
  # The calling process's side of a server: asks, waits, and leaves nothing behind.
  #
  # A request is opened with its first pieces. The server answers the calling process with messages:
  #
  #   * `{ref, {:chunk, number, audio}}`, only for pieces with `stream: true`
  #   * `{ref, {:done, number, audio}}` with the piece's whole audio (without samples if it was streamed)
  #   * `{ref, {:error, error}}`, the last one
  #   * `{:DOWN, ref, :process, _, reason}` if the server ends before that
  #
  # The request is cancelled by `release/2`, and when the calling process ends.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Server.Request

  @typedoc """
  `timeout` is for the request as a whole, in milliseconds; `options` are for the model.
  """
  @type settings :: %{timeout: timeout, priority: :high | :normal | :low, options: map}

  @doc """
  What the server's model is, and the server's limits.
  """
  @spec about(GenServer.server(), timeout) :: {:ok, map} | {:error, Error.t()}
  def about(server, timeout), do: call(server, :about, timeout)

  @spec open(GenServer.server(), settings, [Request.piece()]) :: {:ok, reference} | {:error, Error.t()}
  def open(server, settings, pieces) do
    case GenServer.whereis(server) do
      nil ->
        {:error, not_running(server)}

      process ->
        ref = :erlang.monitor(:process, process, alias: :explicit_unalias)
        GenServer.cast(process, {:open, self(), ref, settings, pieces})
        {:ok, ref}
    end
  rescue
    # What the VM raises where another node is named and this one is not distributed.
    ArgumentError -> {:error, ended(server, :noconnection)}
  end

  @spec more(GenServer.server(), reference, [Request.piece()]) :: :ok
  def more(server, ref, pieces), do: GenServer.cast(server, {:more, ref, pieces})

  @doc """
  Waits for what comes next of the piece `number`, or of any piece.

  `stop` is a monitor whose end ends the calling process too: the listener is gone.
  """
  @spec next(GenServer.server(), reference, non_neg_integer | :any, timeout, reference | nil) ::
          {:chunk, non_neg_integer, Chatterbex.Audio.t()}
          | {:done, non_neg_integer, Chatterbex.Audio.t()}
          | {:error, Error.t()}
          | :timeout
  def next(server, ref, number, timeout, stop) do
    receive do
      {^ref, {:error, error}} -> {:error, error}
      {^ref, {_kind, piece, _audio} = message} when number in [:any, piece] -> message
      {:DOWN, ^ref, :process, _process, reason} -> {:error, ended(server, reason)}
      {:DOWN, ^stop, :process, _process, _reason} -> exit(:normal)
    after
      timeout -> :timeout
    end
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

  @spec await_ready(GenServer.server(), timeout) :: :ok | {:error, Error.t()}
  def await_ready(server, timeout), do: call(server, :await_ready, timeout)

  @spec info(GenServer.server()) :: {:ok, map} | {:error, Error.t()}
  def info(server), do: call(server, :info, :infinity)

  @doc """
  Calls a function of the server's model, after those that were called before.
  """
  @spec call_model(GenServer.server(), String.t(), map, timeout) :: {:ok, map} | {:error, Error.t()}
  def call_model(server, function, arguments, timeout),
    do: call(server, {:call, function, arguments}, timeout)

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
      %{exit: reason}
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
end
