defmodule Chatterbex.DefaultServer do
  @moduledoc false
  # The server for calls that do not name one. The first call that needs it starts it.

  alias Chatterbex.{Error, Server}

  @supervisor Chatterbex.DefaultServerSupervisor

  @doc """
  The server for a call: the given one, or the default server, which is started unless it is running.
  """
  @spec resolve(GenServer.server() | nil) :: {:ok, GenServer.server()} | {:error, Error.t()}
  def resolve(nil), do: if(GenServer.whereis(__MODULE__), do: {:ok, __MODULE__}, else: start())
  def resolve(server), do: {:ok, server}

  @doc """
  The name of the server for a call. Nothing is started.
  """
  @spec name(GenServer.server() | nil) :: GenServer.server()
  def name(server), do: server || __MODULE__

  @doc """
  The server of a call, as the metadata of its span. The options are not checked yet.
  """
  @spec asked(term) :: %{server: GenServer.server()}
  def asked(options), do: %{server: name(if(Keyword.keyword?(options), do: options[:server]))}

  # Temporary: a default server that is stopped stays stopped until it is needed again.
  defp start do
    spec = Supervisor.child_spec({Server, [name: __MODULE__]}, restart: :temporary)

    case DynamicSupervisor.start_child(@supervisor, spec) do
      {:ok, _pid} -> {:ok, __MODULE__}
      {:error, {:already_started, _pid}} -> {:ok, __MODULE__}
      {:error, %Error{} = error} -> {:error, error}
    end
  catch
    :exit, _not_running ->
      {:error, Error.new(:not_running, "the application :chatterbex is not running or is stopping")}
  end
end
