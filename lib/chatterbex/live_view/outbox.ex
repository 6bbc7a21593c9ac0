defmodule Chatterbex.LiveView.Outbox do
  @moduledoc false
  # The audio of one speech on its way to a browser: cut into parts, which are sent as the browser plays those before.

  # Milliseconds of audio in a part: what a slow connection must transfer before the first sound.
  @part 250

  # Parts that are sent but not played: the browser's buffer, and what is wasted when the speech is stopped.
  @max_sent 16

  @enforce_keys [:ref, :id]
  defstruct [
    :ref,
    :id,
    :rate,
    waiting: :queue.new(),
    sent: [],
    next: 0,
    played: 0,
    complete: false,
    ended: false,
    scheduled: false
  ]

  @type t :: %__MODULE__{}

  @doc """
  An empty outbox for a stream. Its `id` identifies the speech to the browser, even if that was connected to another
  process before.
  """
  @spec new(reference) :: t
  def new(ref), do: %__MODULE__{ref: ref, id: Base.encode64(:crypto.strong_rand_bytes(9))}

  @doc """
  Adds a chunk, with its bytes per second and its text.
  """
  @spec put(t, binary, pos_integer, String.t() | nil) :: t
  def put(outbox, pcm, bytes_per_second, text) do
    size = div(bytes_per_second * @part, 1_000)
    %{outbox | waiting: cut(pcm, size - rem(size, 2), text, outbox.waiting)}
  end

  defp cut(pcm, size, text, queue) when byte_size(pcm) > size do
    <<part::binary-size(size), rest::binary>> = pcm
    cut(rest, size, nil, :queue.in({part, text, false}, queue))
  end

  defp cut(pcm, _size, text, queue), do: :queue.in({pcm, text, true}, queue)

  @doc """
  The part to send next; `:wait` if there is none or enough was sent; `:end`, once, after the last.
  """
  @spec next(t) :: {{binary, String.t() | nil}, t} | :wait | :end
  def next(%{next: next, played: played}) when next - played >= @max_sent, do: :wait

  def next(outbox) do
    case :queue.out(outbox.waiting) do
      {{:value, {pcm, text, last}}, waiting} ->
        {{pcm, text}, %{outbox | waiting: waiting, next: outbox.next + 1, sent: outbox.sent ++ [last]}}

      {:empty, _waiting} ->
        if outbox.complete and not outbox.ended, do: :end, else: :wait
    end
  end

  @doc """
  Records that a part, and all before it, was played. Returns the number of chunks that were completed by it.
  """
  @spec played(t, integer) :: {non_neg_integer, t}
  def played(%{played: played, next: next} = outbox, part) when part >= played and part < next do
    {done, sent} = Enum.split(outbox.sent, part + 1 - played)
    {Enum.count(done, & &1), %{outbox | sent: sent, played: part + 1}}
  end

  def played(outbox, _old_or_unknown), do: {0, outbox}
end
