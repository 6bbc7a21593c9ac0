defmodule Chatterbex.Server.Engine do
  @moduledoc false
  # Where a server's model runs: in this VM, in its own process if it is isolated, or nowhere, for the tests of an
  # application. All engines accept the same commands and answer with the same events.

  alias Chatterbex.{Error, Peer, Runtime, Test}

  @type t :: :here | pid | Test.Engine.t()

  @doc """
  The engine for a server with these options, which calls this. An isolated one boots in the background.
  """
  @spec start(map) :: t
  def start(%{testing: true} = options), do: Test.Engine.new(options)
  def start(%{isolation: :none}), do: :here

  def start(%{isolation: :peer} = options) do
    {:ok, peer} = Peer.start_link(%{memory_limit: options.memory_limit})
    peer
  end

  @doc """
  Starts Python, unless it runs: see `Chatterbex.Runtime.start_python/1`.
  """
  @spec start_python(t, map) :: {:ok, map} | {:error, Error.t() | :peer_down}
  def start_python(:here, options), do: Runtime.start_python(options)
  def start_python(peer, options), do: Peer.start_python(peer, options)

  @doc """
  Gives a command to the engine; its events come to the calling process.
  """
  @spec submit(t, map) :: :ok | {:error, Error.t()}
  def submit(:here, command), do: Runtime.submit(command)
  def submit(%Test.Engine{} = engine, command), do: Test.Engine.submit(engine, command)
  def submit(peer, command), do: Peer.submit(peer, command)

  @spec cancel(t, pos_integer) :: :ok
  def cancel(:here, id), do: Runtime.cancel(id)
  def cancel(%Test.Engine{}, _id), do: :ok
  def cancel(peer, id), do: Peer.cancel(peer, id)

  @doc """
  Makes sure that the model is removed from memory if the calling process dies.
  """
  @spec watch(t, pos_integer) :: :ok
  def watch(:here, model_id), do: Runtime.watch(self(), model_id)
  def watch(_its_own, _model_id), do: :ok

  @doc """
  Removes a model from memory, and stops its engine if it has its own.
  """
  @spec stop(t, pos_integer | nil) :: :ok
  def stop(:here, nil), do: :ok
  def stop(%Test.Engine{}, _model_id), do: :ok

  def stop(:here, model_id) do
    _ok_or_crashed = Runtime.submit(%{"op" => "unload", "id" => Runtime.new_id(), "model_id" => model_id})
    :ok
  end

  def stop(peer, _model_id) do
    Process.unlink(peer)
    Peer.stop(peer)

    # It may have ended by itself a moment ago.
    receive do
      {:EXIT, ^peer, _reason} -> :ok
    after
      0 -> :ok
    end
  end
end
