defmodule Chatterbex.Mailbox do
  @moduledoc false
  # The mailbox of the calling process.

  @doc """
  Removes all messages of the form `{ref, message}`.

      iex> ref = make_ref()
      iex> send(self(), {ref, :late})
      iex> Chatterbex.Mailbox.flush(ref)
      :ok
  """
  @spec flush(reference) :: :ok
  def flush(ref) do
    receive do
      {^ref, _message} -> flush(ref)
    after
      0 -> :ok
    end
  end
end
