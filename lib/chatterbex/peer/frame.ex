defmodule Chatterbex.Peer.Frame do
  @moduledoc false
  # A message between a VM and its guest: one packet. Audio follows the rest of its event as it is, so that neither side
  # copies it.

  @doc """
  A message as iodata.
  """
  @spec encode(term) :: iodata
  def encode({:event, id, event, %{"samples" => samples} = payload}) when is_binary(samples) do
    head = :erlang.term_to_binary({:event, id, event, Map.delete(payload, "samples")})
    [<<byte_size(head)::32>>, head, samples]
  end

  def encode(message), do: [<<0::32>> | :erlang.term_to_iovec(message)]

  @doc """
  The message of a packet. Its samples are a part of the packet.
  """
  @spec decode(binary) :: term
  def decode(<<0::32, message::binary>>), do: :erlang.binary_to_term(message)

  def decode(<<size::32, head::binary-size(size), samples::binary>>) do
    {:event, id, event, payload} = :erlang.binary_to_term(head)
    {:event, id, event, Map.put(payload, "samples", samples)}
  end
end
