defmodule Chatterbex.Server.Blame do
  @moduledoc false
  # The texts that ended the model's process, which are not tried again for a while: see `Chatterbex.Server.Crashes`.

  alias Chatterbex.Peer
  alias Chatterbex.Server.Request

  # How many texts are remembered, and for how many milliseconds.
  @most 100
  @keep 600_000

  @type t :: %{String.t() => {until :: integer, [Peer.reason()]}}

  @doc """
  Remembers the text of a piece, unless as many are remembered as may be.
  """
  @spec remember(t, Request.piece()) :: t
  # A conversion has no text, and its audio is not compared.
  def remember(blame, %{text: ""}), do: blame

  def remember(blame, piece) do
    now = System.monotonic_time(:millisecond)
    blame = Map.filter(blame, fn {_text, {until, _deaths}} -> until > now end)

    if map_size(blame) < @most,
      do: Map.put(blame, piece.text, {now + @keep, piece.deaths}),
      else: blame
  end

  @doc """
  Whether a text is to blame, and for which ends of the process.
  """
  @spec of(t, String.t()) :: :innocent | {:guilty, [Peer.reason()]}
  def of(blame, text) do
    with %{^text => {until, deaths}} <- blame,
         true <- until > System.monotonic_time(:millisecond) do
      {:guilty, deaths}
    else
      _innocent -> :innocent
    end
  end
end
