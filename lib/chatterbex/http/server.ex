defmodule Chatterbex.HTTP.Server do
  @moduledoc """
  A web server for `Chatterbex.HTTP`, built on OTP alone.

      children = [
        {Chatterbex, name: MyApp.Speech, model: :turbo},
        {Chatterbex.HTTP.Server, server: MyApp.Speech, port: 4000}
      ]

  It supports HTTP/1.1 and 1.0, keeps connections open between requests, and sends speech while it is made. When a client
  hangs up, the work for it stops within one step of the model.

  By default it only accepts connections from this machine, and it has no TLS. To serve others, set `:ip` and an
  `:api_key`, and put it behind a proxy with TLS.

  It limits the size and the time of everything that it reads, and the number of connections and requests that it serves
  at once. When it stops, it accepts no new connections and gives running requests `:drain_timeout` to finish.

  ## Options

  The options of `Chatterbex.HTTP.new/1`, and

  #{Chatterbex.Options.Schema.docs(:http_server, [:name, :port, :ip, :max_connections, :max_requests, :max_head, :idle_timeout, :read_timeout, :send_timeout, :request_timeout, :drain_timeout])}
  """

  use Supervisor

  alias Chatterbex.{Error, HTTP, Options}
  alias Chatterbex.HTTP.Server.{Drain, Listener}

  @own [
    :name,
    :port,
    :ip,
    :max_connections,
    :max_requests,
    :max_head,
    :idle_timeout,
    :read_timeout,
    :send_timeout,
    :request_timeout,
    :drain_timeout
  ]

  @doc """
  A child specification for a supervisor.

  ## Examples

      iex> Chatterbex.HTTP.Server.child_spec(name: MyApp.Web).id
      MyApp.Web
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  @doc """
  Starts the web server.

  ## Examples

      {:ok, server} = Chatterbex.HTTP.Server.start_link(server: MyApp.Speech, port: 0)

      iex> {:error, error} = Chatterbex.HTTP.Server.start_link(port: 70_000)
      iex> error.message
      "option :port must be a whole number from 0 to 65535, got 70000"
  """
  @spec start_link(keyword) :: Supervisor.on_start() | {:error, Error.t()}
  def start_link(options \\ []) do
    with {:ok, valid} <- Options.validate(:http_server, options),
         {:ok, ip} <- address(valid.ip),
         {:ok, http} <- options |> Keyword.drop(@own) |> HTTP.new() do
      settings = Map.merge(valid, %{ip: ip, http: http})
      Supervisor.start_link(__MODULE__, settings, if(valid.name, do: [name: valid.name], else: []))
    end
  end

  defp address("localhost"), do: {:ok, {127, 0, 0, 1}}

  defp address(text) do
    with {:error, :einval} <- text |> String.to_charlist() |> :inet.parse_strict_address() do
      {:error,
       Error.new(
         :invalid_option,
         ~s(option :ip must be an address, as in "127.0.0.1" or "::", got #{Options.Schema.show(text)})
       )}
    end
  end

  @doc """
  The port that the server listens on.

  ## Examples

      {:ok, server} = Chatterbex.HTTP.Server.start_link(port: 0)
      Chatterbex.HTTP.Server.port(server)
      41234
  """
  @spec port(Supervisor.supervisor()) :: :inet.port_number()
  def port(server) do
    [listener] = for {Listener, pid, _type, _modules} <- Supervisor.which_children(server), do: pid
    Listener.port(listener)
  end

  # Children stop in reverse order: first no new connections, then the existing ones end.
  @impl true
  def init(settings) do
    supervisor = self()
    sibling = &sibling(supervisor, &1)

    children = [
      %{
        id: :workers,
        start: {Task.Supervisor, :start_link, [[max_children: settings.max_requests]]},
        type: :supervisor
      },
      %{
        id: :connections,
        start:
          {DynamicSupervisor, :start_link, [[strategy: :one_for_one, max_children: settings.max_connections]]},
        type: :supervisor
      },
      %{
        id: Drain,
        start: {Drain, :start_link, [sibling, settings.drain_timeout]},
        shutdown: settings.drain_timeout + 1_000
      },
      %{id: Listener, start: {Listener, :start_link, [sibling, settings]}, shutdown: 5_000}
    ]

    Supervisor.init(children, strategy: :one_for_all, max_restarts: 10, max_seconds: 30)
  end

  # A child calls this when all children are running.
  @doc false
  @spec sibling(pid, atom) :: pid
  def sibling(supervisor, id) do
    {^id, pid, _type, _modules} = supervisor |> Supervisor.which_children() |> List.keyfind(id, 0)
    pid
  end
end
