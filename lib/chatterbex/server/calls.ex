defmodule Chatterbex.Server.Calls do
  @moduledoc false
  # Which calls the model is given, and when.
  #
  # Calls go before pieces, in order. A call that the model's process died of runs alone, as such a piece does; nothing
  # else is given to the model meanwhile.

  alias Chatterbex.Peer
  alias Chatterbex.Server.{Call, Crashes, Queue}

  @type id :: pos_integer
  @type t :: %{id => Call.t()}

  @doc """
  The calls to submit now, and whether pieces may follow them.
  """
  @spec due(t, Queue.t()) :: {[id], boolean}
  def due(calls, queue) do
    {submitted, waiting} = Enum.split_with(calls, fn {_id, call} -> call.submitted end)
    suspects = for {id, %{deaths: [_ | _]}} <- waiting, do: id

    cond do
      Enum.any?(submitted, fn {_id, call} -> call.deaths != [] end) -> {[], false}
      suspects != [] and (submitted != [] or map_size(queue.running) > 0) -> {[], false}
      suspects != [] -> {[Enum.min(suspects)], false}
      Queue.suspicious?(queue) -> {[], submitted == []}
      true -> {Enum.sort(for {id, _call} <- waiting, do: id), true}
    end
  end

  @doc """
  The model's process has died: the calls that it had wait again. Those that are to blame come first.
  """
  @spec died(t, Peer.reason()) :: {[id], t}
  def died(calls, reason) do
    calls =
      Map.new(calls, fn
        {id, %{submitted: true} = call} -> {id, %{call | submitted: false, deaths: [reason | call.deaths]}}
        waiting -> waiting
      end)

    {for({id, call} <- calls, Crashes.guilty?(call.deaths), do: id), calls}
  end
end
