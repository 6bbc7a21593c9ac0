defmodule Chatterbex.Client do
  @moduledoc false
  # The calling process's side of a server: sends requests, waits, and cleans up.
  #
  # A request is opened with its first pieces. The server answers the calling process with messages:
  #
  #   * `{ref, {:chunk, number, audio}}`, only for pieces with `stream: true`
  #   * `{ref, {:done, number, audio}}` with the piece's whole audio (without samples if it was streamed)
  #   * `{ref, {:error, error}}`, the last one
  #   * `{:DOWN, ref, :process, _, reason}` if the server ends before that
  #
  # The request is cancelled by `release/2`, and when the calling process ends.

  alias Chatterbex.{Error, Mailbox}
  alias Chatterbex.Options.{Cast, Schema}
  alias Chatterbex.Server.Request

  @typedoc """
  `timeout` is for the whole request, in milliseconds. `deadline` is the deadline that it stands for, if any. `resume` says
  that a stream may continue in another process. `options` are for the model.
  """
  @type settings :: %{
          required(:timeout) => timeout,
          required(:deadline) => DateTime.t() | nil,
          required(:priority) => :high | :normal | :low,
          required(:options) => map,
          optional(:resume) => boolean
        }

  # The version of the messages between callers and servers. It changes when they would misunderstand each other.
  @protocol 1

  @doc """
  The version of the messages between callers and servers, which may be on nodes with different versions of the library.
  """
  @spec protocol() :: pos_integer
  def protocol, do: @protocol

  @doc """
  Returns the server's model and the server's limits.
  """
  @spec about(GenServer.server(), timeout) :: {:ok, map} | {:error, Error.t()}
  def about(server, timeout) do
    with {:ok, about} <- call(server, :about, timeout), do: understood(about, server)
  end

  defp understood(%{protocol: @protocol} = about, _server), do: {:ok, about}

  defp understood(about, server) do
    {:error,
     Error.new(
       :not_supported,
       "#{inspect(server)} is on #{about.node}, whose version of Chatterbex speaks protocol #{inspect(about[:protocol])}; " <>
         "this node speaks #{@protocol}. Run the same version on both.",
       %{server: server, protocol: about[:protocol]}
     )}
  end

  @spec open(GenServer.server(), settings, [Request.piece()]) :: {:ok, reference} | {:error, Error.t()}
  def open(server, settings, pieces) do
    with {:ok, process} <- find(server) do
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
  Waits for the next message of any piece. The server's timer ends this wait, or the monitor if the server ends.
  """
  @spec next(GenServer.server(), reference) ::
          {:chunk | :done, non_neg_integer, Chatterbex.Audio.t()} | {:error, Error.t()}
  def next(server, ref) do
    receive do
      {^ref, message} -> message
      {:DOWN, ^ref, :process, _process, reason} -> {:error, ended(server, reason)}
    end
  end

  @doc """
  Ends a request: cancels it unless it is done, and removes its messages. No more will arrive.
  """
  @spec release(GenServer.server(), reference) :: :ok
  def release(server, ref) do
    :erlang.unalias(ref)
    Process.demonitor(ref, [:flush])
    GenServer.cast(server, {:release, ref})
    Mailbox.flush(ref)
  end

  @spec await_ready(GenServer.server(), timeout) :: :ok | {:error, Error.t()}
  def await_ready(server, timeout), do: call(server, :await_ready, timeout)

  @doc """
  Makes a call to a server or a pool.
  """
  @spec request(GenServer.server(), term, timeout) :: term
  def request(server, question, timeout), do: call(server, question, timeout)

  @spec info(GenServer.server()) :: {:ok, map} | {:error, Error.t()}
  def info(server), do: call(server, :info, :infinity)

  @doc """
  Calls a function of the server's model, after those that were called before.
  """
  @spec call_model(GenServer.server(), String.t(), map, timeout) :: {:ok, map} | {:error, Error.t()}
  def call_model(server, function, arguments, timeout),
    do: call(server, {:call, function, arguments, timeout}, timeout)

  @spec stop(GenServer.server(), timeout) :: :ok | {:error, Error.t()}
  def stop(server, timeout) do
    with {:ok, process} <- find(server), do: GenServer.stop(process, :normal, timeout)
  catch
    :exit, reason -> {:error, exit_error(server, reason)}
  end

  # The server answers every call in bounded time, so only its end must be caught.
  defp call(server, request, timeout) do
    with {:ok, process} <- find(server), do: GenServer.call(process, request, timeout)
  catch
    :exit, reason -> {:error, exit_error(server, reason)}
  end

  # The process of a name. A registry may be missing, and a custom one may do anything.
  defp find(server) do
    with {:ok, server} <- name(server) do
      case GenServer.whereis(server) do
        nil -> {:error, not_running(server)}
        process -> {:ok, process}
      end
    end
  rescue
    exception ->
      {:error,
       Error.new(
         :not_running,
         "the server #{inspect(server)} cannot be looked up: #{Exception.message(exception)}. Is its registry running?",
         %{server: server}
       )}
  end

  defp name(server) do
    with :error <- Cast.cast(:server, server) do
      {:error,
       Error.new(
         :invalid_option,
         "#{Schema.show(server)} is not a server: it must be #{Schema.describe(:server)}",
         %{got: server}
       )}
    end
  end

  defp exit_error(server, {:timeout, _call}),
    do: Error.new(:timeout, "#{inspect(server)} did not answer in time")

  defp exit_error(server, {{:nodedown, _node}, _call}), do: ended(server, :noconnection)
  defp exit_error(server, {reason, {_module, _function, _arguments}}), do: ended(server, reason)
  defp exit_error(server, reason), do: ended(server, reason)

  @doc """
  The error for the end of a server, by the reason that its monitor reports.
  """
  @spec ended(GenServer.server(), term) :: Error.t()
  def ended(server, reason)

  def ended(server, :noproc), do: not_running(server)

  def ended(server, :noconnection) do
    Error.new(:noconnection, "the node of #{inspect(server)} is not connected", %{server: server})
  end

  def ended(server, :calling_self),
    do: Error.new(:invalid_option, "#{inspect(server)} is the calling process itself")

  def ended(server, reason)
      when reason in [:normal, :shutdown] or (is_tuple(reason) and elem(reason, 0) == :shutdown),
      do: Error.new(:cancelled, "#{inspect(server)} was stopped before it answered")

  def ended(server, reason) do
    Error.new(
      :engine_crashed,
      "#{inspect(server)} ended before it answered: #{Schema.show(reason)}",
      %{exit: reason}
    )
  end

  defp not_running(server) do
    Error.new(
      :not_running,
      "no server runs as #{inspect(server)}. Start it under your supervisor: " <>
        "children = [{Chatterbex, name: #{inspect(server)}}]",
      %{server: server}
    )
  end
end
