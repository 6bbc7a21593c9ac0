defmodule Chatterbex.Server.Description do
  @moduledoc false
  # The description of a server, made from its state.

  alias Chatterbex.{Device, Names}
  alias Chatterbex.Server.Queue

  @doc """
  What `Chatterbex.info/1` returns.
  """
  @spec describe(map) :: map
  def describe(state) do
    %{
      server: state.name,
      model: state.model.name,
      status: status(state.status),
      error: failure(state.status),
      device: device(state),
      queue: %{
        open: Queue.open(state.queue),
        waiting: state.queue.waiting,
        running: map_size(state.queue.running),
        max_queue: state.queue.max_queue,
        max_batch: state.queue.max_batch
      },
      load: Names.atoms(state.loaded["load"] || %{}),
      memory: Names.atoms(state.loaded["memory"] || %{}),
      components: Names.atoms(state.loaded["components"] || %{}),
      versions: state.loaded["versions"] || %{},
      precision: Names.atoms(state.loaded["precision"]),
      checkpoint: state.loaded["checkpoint"],
      isolation: state.options.isolation,
      testing: state.options.testing,
      process: %{os_pid: state.os_pid, died: state.died}
    }
  end

  defp status({:failed, _error, _at}), do: :failed
  defp status(status), do: status

  defp failure({:failed, error, _at}), do: error
  defp failure(_status), do: nil

  defp device(%{loaded: %{"device" => %{"actual" => actual} = device}} = state) do
    {:ok, actual} = Device.parse(actual)

    %{
      requested: state.options.device,
      actual: actual,
      reason: device["reason"],
      warning: device["warning"],
      proof: Names.atoms(device["proof"]),
      limited: device["limited"]
    }
  end

  defp device(state) do
    %{requested: state.options.device, actual: nil, reason: nil, warning: nil, proof: nil, limited: nil}
  end
end
