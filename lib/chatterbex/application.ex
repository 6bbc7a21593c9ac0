defmodule Chatterbex.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    # The runtime stops last: servers give their models back to it.
    children = [
      Chatterbex.Runtime,
      Chatterbex.Voice.FileCache,
      %{id: Chatterbex.Pool.Members, start: {:pg, :start_link, [Chatterbex.Pool.Members.scope()]}},
      {DynamicSupervisor, name: Chatterbex.DefaultServerSupervisor, strategy: :one_for_one},
      {Registry, keys: :unique, name: Chatterbex.Senders},
      {Task.Supervisor, name: Chatterbex.SenderSupervisor}
    ]

    Supervisor.start_link(children ++ dashboard(), strategy: :rest_for_one, name: Chatterbex.Supervisor)
  end

  # What its page shows.
  defp dashboard,
    do: if(Code.ensure_loaded?(Chatterbex.LiveDashboard), do: [Chatterbex.Telemetry.Recent], else: [])
end
