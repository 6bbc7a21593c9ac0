defmodule Chatterbex.Server.Call do
  @moduledoc false
  # A call of a function of the model, until it is answered.

  alias Chatterbex.Peer

  @enforce_keys [:from, :function, :arguments, :monitor, :timer]
  defstruct @enforce_keys ++ [submitted: false, deaths: []]

  @typedoc """
  `submitted` says whether the model has it, and `deaths` are the ends of the model's process while it had.
  """
  @type t :: %__MODULE__{
          from: GenServer.from(),
          function: String.t(),
          arguments: map,
          monitor: reference,
          timer: reference | nil,
          submitted: boolean,
          deaths: [Peer.reason()]
        }
end
