defmodule Chatterbex.HTTP.Status do
  @moduledoc false
  # The state of the servers, for monitoring.

  alias Chatterbex.HTTP.{Backend, Catalogue, Counters, Response}

  @doc """
  A server is ready if it can answer without loading first, or loads on request.
  """
  @spec ready(map) :: Response.t()
  def ready(options) do
    with {:ok, servers} <- Catalogue.all(options) do
      models = Map.new(servers, fn {name, server} -> {name, status(server)} end)
      ready? = Enum.all?(models, fn {_name, status} -> status in ["ready", "idle"] end)
      Response.json(if(ready?, do: 200, else: 503), %{ready: ready?, models: models})
    else
      {:error, response} -> %{response | status: 503}
    end
  end

  defp status(server) do
    case Backend.info(server) do
      {:ok, info} -> Atom.to_string(info.status)
      {:error, error} -> Atom.to_string(error.reason)
    end
  end

  @spec metrics(map, Counters.t()) :: Response.t()
  def metrics(options, metrics) do
    gauges =
      case Catalogue.all(options) do
        {:ok, servers} -> gauges(servers)
        {:error, _response} -> []
      end

    Response.text(200, "text/plain; version=0.0.4; charset=utf-8", [Counters.text(metrics) | gauges])
  end

  defp gauges(servers) do
    infos = for {name, server} <- servers, {:ok, info} <- [Backend.info(server)], do: {name, info}

    for {gauge, help, value} <- [
          {"ready", "Whether the model is loaded.", &if(&1.status == :ready, do: 1, else: 0)},
          {"queue_open", "Requests that wait or are being spoken.", & &1.queue.open},
          {"queue_waiting", "Requests that the model has not begun.", & &1.queue.waiting},
          {"queue_running", "Pieces of text that the model works on.", & &1.queue.running}
        ] do
      [
        Counters.head("chatterbex_" <> gauge, help, "gauge"),
        for({name, info} <- infos, do: ["chatterbex_", gauge, label(name), " #{value.(info)}\n"])
      ]
    end
  end

  defp label(name), do: ["{model=\"", String.replace(name, ["\\", "\"", "\n"], "_"), "\"}"]
end
