defmodule Chatterbex.Pool.Choice do
  @moduledoc false
  # Which server of a pool is expected to finish a request first.
  #
  # For each server this knows how many characters wait there, from this node and from others, how many characters per
  # second it spoke while it had work, and which voices it was given recently.

  # Characters per second of an unknown server: the pace of speech.
  @unknown 15.0
  # How much a new measurement weighs.
  @weight 0.2
  # Costs within this factor of the best count as a tie.
  @tie 1.1
  # The cost of making a voice, in seconds.
  @voice 2.0
  @most_voices 32

  defstruct servers: %{}, elsewhere: %{}

  @type t :: %__MODULE__{
          servers: %{
            pid => %{characters: non_neg_integer, speed: float | nil, since: integer, voices: [term]}
          },
          elsewhere: %{pid => %{pid => non_neg_integer}}
        }

  @new %{characters: 0, speed: nil, since: 0, voices: []}

  @doc """
  The best of `candidates` for a text of `characters` in a voice (`nil` for the model's own).
  """
  @spec best(t, [pid], non_neg_integer, term) :: pid | nil
  def best(_choice, [], _characters, _voice), do: nil

  def best(choice, candidates, characters, voice) do
    typical = typical(choice)
    costs = for pid <- candidates, do: {cost(choice, pid, characters, voice, typical), pid}
    {least, _pid} = Enum.min(costs)

    # Among equals, local servers come first. The rest is random, so that nodes do not all choose the same one.
    costs
    |> Enum.filter(fn {cost, _pid} -> cost <= least * @tie end)
    |> Enum.map(fn {_cost, pid} -> {node(pid) != node(), :rand.uniform(), pid} end)
    |> Enum.min()
    |> elem(2)
  end

  defp cost(choice, pid, characters, voice, typical) do
    server = Map.get(choice.servers, pid, @new)
    others = choice.elsewhere |> Map.values() |> Enum.map(&Map.get(&1, pid, 0)) |> Enum.sum()
    make = if voice == nil or voice in server.voices, do: 0, else: @voice
    (server.characters + others + characters) / (server.speed || typical) + make
  end

  defp typical(choice) do
    case for %{speed: speed} when speed != nil <- Map.values(choice.servers), do: speed do
      [] -> @unknown
      speeds -> Enum.sum(speeds) / length(speeds)
    end
  end

  @doc """
  Records that a server was given a text of `characters`, at the time `now` in milliseconds.
  """
  @spec given(t, pid, non_neg_integer, term, integer) :: t
  def given(choice, pid, characters, voice, now) do
    update(choice, pid, fn server ->
      since = if server.characters == 0, do: now, else: server.since

      voices =
        if voice,
          do: Enum.take([voice | List.delete(server.voices, voice)], @most_voices),
          else: server.voices

      %{server | characters: server.characters + characters, since: since, voices: voices}
    end)
  end

  @doc """
  Records that a server has spoken `characters`.
  """
  @spec spoken(t, pid, non_neg_integer, integer) :: t
  def spoken(choice, pid, characters, now) do
    choice = update(choice, pid, &measured(&1, characters, now))
    taken_back(choice, pid, characters)
  end

  defp measured(server, characters, now) do
    speed = characters / max((now - server.since) / 1000, 0.001)
    mean = if server.speed, do: (1 - @weight) * server.speed + @weight * speed, else: speed
    %{server | speed: max(mean, 0.01), since: now}
  end

  @doc """
  Records that a server no longer has to speak `characters`.
  """
  @spec taken_back(t, pid, non_neg_integer) :: t
  def taken_back(choice, pid, characters),
    do: update(choice, pid, &%{&1 | characters: max(&1.characters - characters, 0)})

  @doc """
  Records what a pool on another node has given to servers, by their pids.
  """
  @spec elsewhere(t, pid, %{pid => non_neg_integer}) :: t
  def elsewhere(choice, router, given), do: %{choice | elsewhere: Map.put(choice.elsewhere, router, given)}

  @doc """
  Forgets servers and pools that no longer exist.
  """
  @spec keep(t, [pid], [pid]) :: t
  def keep(choice, servers, routers),
    do: %{choice | servers: Map.take(choice.servers, servers), elsewhere: Map.take(choice.elsewhere, routers)}

  @doc """
  The characters that this pool has given to servers and that they have not spoken yet.
  """
  @spec waiting(t) :: %{pid => pos_integer}
  def waiting(choice), do: for({pid, %{characters: n}} when n > 0 <- choice.servers, into: %{}, do: {pid, n})

  defp update(choice, pid, change),
    do: %{choice | servers: Map.put(choice.servers, pid, change.(Map.get(choice.servers, pid, @new)))}
end
