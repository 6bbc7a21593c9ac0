defmodule Chatterbex.Pool.Members do
  @moduledoc false
  # The servers of a pool, on all nodes that speak the same protocol: process groups of `:pg`.

  alias Chatterbex.Client

  @scope __MODULE__

  @doc "The scope of `:pg` that the application starts."
  @spec scope() :: atom
  def scope, do: @scope

  @doc "The servers of a pool, on all nodes."
  @spec list(GenServer.name()) :: [pid]
  def list(pool), do: :pg.get_members(@scope, group(:members, pool))

  @doc "The servers of a pool on this node."
  @spec local(GenServer.name()) :: [pid]
  def local(pool), do: :pg.get_local_members(@scope, group(:members, pool))

  @doc "Adds a server of this node to a pool."
  @spec join(GenServer.name(), pid) :: :ok
  def join(pool, server), do: :pg.join(@scope, group(:members, pool), server)

  @doc "Takes servers of this node out of a pool."
  @spec leave(GenServer.name(), [pid]) :: :ok
  def leave(pool, servers) do
    for server <- servers, do: :pg.leave(@scope, group(:members, pool), server)
    :ok
  end

  @doc "Adds the router of this node to the routers of a pool."
  @spec join_router(GenServer.name(), pid) :: :ok
  def join_router(pool, router), do: :pg.join(@scope, group(:routers, pool), router)

  @doc "The routers of a pool, on all nodes."
  @spec routers(GenServer.name()) :: [pid]
  def routers(pool), do: :pg.get_members(@scope, group(:routers, pool))

  @doc "The nodes whose servers of a pool speak another protocol."
  @spec strangers(GenServer.name()) :: [node]
  def strangers(pool) do
    mine = Client.protocol()

    for {:members, ^pool, protocol} = group <- :pg.which_groups(@scope),
        protocol != mine,
        server <- :pg.get_members(@scope, group),
        uniq: true,
        do: node(server)
  end

  defp group(kind, pool), do: {kind, pool, Client.protocol()}
end
