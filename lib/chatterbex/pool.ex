defmodule Chatterbex.Pool do
  @moduledoc """
  Several servers behind one name, on one machine or several.

      children = [
        {Chatterbex.Pool, name: MyApp.Speech, size: 2, model: :turbo, devices: [{:cuda, 0}, {:cuda, 1}]}
      ]

      {:ok, audio} = Chatterbex.generate("Hello, world!", server: MyApp.Speech)

  A pool starts `size` servers, each with its model in its own operating system process (`isolation: :peer`). Use the
  pool's name as you would use a server's. Pools with the same name on connected nodes share their servers: a pool of
  `size: 0` has no servers of its own, and uses those of the other nodes.

  ## Where a request goes

  The pool sends a request to the server that it expects to finish first, based on the characters that wait there and on
  the server's speed so far. Among servers that are about equally fast, it prefers one on the same node, and one that
  already has the voice.

  If the queue of a server is full, the request goes to another one. It is refused with `:overloaded` only if all queues
  are full. If a server or its node dies, its requests go to other servers. Pieces of a text that are done stay done. A
  stream that has already sent audio ends with `:engine_crashed`, or continues with `resume: true`.

  Nodes with a version of this library that speaks another protocol are not used. That is logged once.

  The [guide to clusters](clusters.md) shows whole set-ups.
  """

  use Supervisor

  alias Chatterbex.{Client, Configuration, Error, Options}
  alias Chatterbex.Pool.Router

  @doc """
  A child specification for a supervisor.

  ## Examples

      iex> Chatterbex.Pool.child_spec(name: MyApp.Speech).id
      MyApp.Speech
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor,
      shutdown: :infinity
    }
  end

  @doc """
  Starts a pool. Its servers load their models in the background.

  ## Options

  `:name` is required. The options of a server (`Chatterbex.Options`) apply to each server of the pool; `:isolation` is
  `:peer` by default. A pool also has

  #{Options.Schema.docs(:pool, [:size, :devices])}

  ## Examples

      {:ok, pool} = Chatterbex.Pool.start_link(name: MyApp.Speech, size: 2)

      iex> {:error, error} = Chatterbex.Pool.start_link(size: 2)
      iex> error.message
      "a pool needs a name, as in {Chatterbex.Pool, name: MyApp.Speech, size: 2}"
  """
  @spec start_link(keyword) :: Supervisor.on_start() | {:error, Error.t()}
  def start_link(options) do
    with {:ok, configured} <- Configuration.server_options(),
         given = if(Keyword.keyword?(options), do: Keyword.merge(configured, options), else: options),
         {:ok, valid} <- Options.validate(:pool, given),
         :ok <- named(valid),
         {:ok, _model} <- Chatterbex.Model.fetch(valid.model) do
      server = options |> Keyword.drop([:name, :size, :devices]) |> Keyword.put(:isolation, valid.isolation)
      Supervisor.start_link(__MODULE__, {valid, server})
    end
  end

  defp named(%{name: nil}) do
    {:error,
     Error.new(:invalid_option, "a pool needs a name, as in {Chatterbex.Pool, name: MyApp.Speech, size: 2}")}
  end

  defp named(_options), do: :ok

  @impl true
  def init({options, server}) do
    members =
      for number <- numbers(options.size) do
        device = if options.devices, do: Enum.at(options.devices, rem(number - 1, length(options.devices)))
        server = if device, do: Keyword.put(server, :device, device), else: server
        start = {__MODULE__, :start_member, [options.name, number, server]}
        %{id: number, start: start, shutdown: 5_000}
      end

    router = %{id: Router, start: {Router, :start_link, [options.name]}}

    Supervisor.init([router | members],
      strategy: :one_for_one,
      max_restarts: 10 + 3 * options.size,
      max_seconds: 30
    )
  end

  defp numbers(0), do: []
  defp numbers(size), do: 1..size

  @doc false
  @spec start_member(GenServer.name(), pos_integer, keyword) :: GenServer.on_start() | {:error, Error.t()}
  def start_member(name, number, options) do
    named = if is_atom(name), do: [name: :"#{name}.#{number}"], else: []

    with {:ok, member} <- Chatterbex.start_link(named ++ options) do
      :ok = GenServer.call(name, {:join, member})
      {:ok, member}
    end
  end

  @doc """
  Takes the servers of this node out of the pool, and waits until their open requests are done.

  From then on, new requests go to other nodes, or are refused with `:not_running` if there are none. Use it for deploys:
  call it before the node stops.

  ## Options

  #{Options.Schema.docs(:drain)}

  ## Examples

      :ok = Chatterbex.Pool.drain(MyApp.Speech, timeout: 30_000)

      iex> {:error, error} = Chatterbex.Pool.drain(MyApp.NoSuchPool, timeout: 1_000)
      iex> error.reason
      :not_running
  """
  @spec drain(Chatterbex.server(), keyword) :: :ok | {:error, Error.t()}
  def drain(pool, options \\ []) do
    with {:ok, %{timeout: timeout}} <- Options.validate(:drain, options),
         deadline =
           if(timeout == :infinity, do: :infinity, else: System.monotonic_time(:millisecond) + timeout),
         {:ok, members} <- Client.request(pool, :drain, 60_000),
         do: drained(pool, members, deadline)
  end

  defp drained(pool, members, deadline) do
    late =
      for member <- members,
          {:error, %Error{reason: :timeout}} <- [Client.request(member, :await_idle, left(deadline))],
          {:ok, %{queue: %{open: open}}} <- [Client.info(member)],
          do: open

    if late == [] do
      :ok
    else
      {:error,
       Error.new(
         :timeout,
         "#{inspect(pool)} is not drained: #{Enum.sum(late)} requests are still open. Give it more time.",
         %{open: Enum.sum(late)}
       )}
    end
  end

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end
