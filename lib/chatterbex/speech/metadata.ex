defmodule Chatterbex.Speech.Metadata do
  @moduledoc false
  # The metadata of audio that was joined from pieces.

  alias Chatterbex.Audio

  @sums [:sentences, :tokens, :text_tokens, :chunks, :retries]
  @of_one @sums ++ ~w(sentence chunk piece pause pieces finish_reason warnings generation_ms rtf seconds)a

  @doc """
  Merges the metadata of pieces, in order. `bytes` is the size of all samples.

  Counts are added up. `:finish_reason` is the first that is not `"stop"`; `:warnings` says so in words.
  """
  @spec merge([Audio.t(), ...], non_neg_integer) :: map
  def merge([first | _] = audios, bytes) do
    all = Enum.map(audios, & &1.metadata)
    ms = all |> Enum.map(&milliseconds/1) |> sum()

    first.metadata
    |> Map.merge(for name <- @sums, total = sum(Enum.map(all, & &1[name])), into: %{}, do: {name, total})
    |> Map.merge(if ms, do: %{generation_ms: ms, rtf: rtf(ms, bytes, first.sample_rate)}, else: %{})
    |> Map.merge(finish(all))
    |> Map.merge(work(all))
    |> Map.put(:pieces, length(audios))
  end

  @doc """
  The metadata that is the same in all audio that has metadata, except positions, counts and times, which belong to the
  parts.
  """
  @spec common([Audio.t()]) :: map
  def common(audios) do
    case for %{metadata: metadata} when metadata != %{} <- audios, do: metadata do
      [] ->
        %{}

      [first | rest] ->
        first |> Map.drop(@of_one) |> Map.filter(fn {key, value} -> agreed?(rest, key, value) end)
    end
  end

  defp agreed?(all, key, value), do: Enum.all?(all, &match?(%{^key => ^value}, &1))

  # The seconds of each kind of work, except the time to the first samples, which is that of the first piece.
  defp work([%{seconds: %{} = first} | rest]) do
    seconds =
      for %{seconds: seconds} <- rest, reduce: first do
        sum -> Map.merge(sum, Map.delete(seconds, :first), fn _kind, a, b -> a + b end)
      end

    %{seconds: seconds}
  end

  defp work(_all), do: %{}

  @doc """
  The speed of the work, as far as it is known: `:rtf`, and `:tokens_per_second` of T3.
  """
  @spec speed(map) :: map
  def speed(metadata) do
    tokens =
      case metadata do
        %{tokens: tokens, seconds: %{t3: seconds}} when seconds > 0 ->
          %{tokens_per_second: tokens / seconds}

        _unknown ->
          %{}
      end

    if metadata[:rtf], do: Map.put(tokens, :rtf, metadata.rtf), else: tokens
  end

  # Chatterbox models report the seconds of each kind of work.
  defp milliseconds(%{generation_ms: ms}), do: ms
  defp milliseconds(%{seconds: %{total: seconds}}), do: seconds * 1000
  defp milliseconds(_metadata), do: nil

  defp rtf(_ms, 0, _rate), do: nil
  defp rtf(ms, bytes, rate), do: ms / 1000 / (bytes / 4 / rate)

  defp finish(all) do
    case Enum.find(all, &(&1[:finish_reason] not in [nil, "stop"])) do
      nil -> %{}
      %{finish_reason: reason} -> %{finish_reason: reason, warnings: warnings(all)}
    end
  end

  defp warnings(all) do
    for {%{finish_reason: reason}, number} <- Enum.with_index(all), reason not in [nil, "stop"] do
      "piece #{number} of the text #{warning(reason)}"
    end
  end

  defp warning("limit"), do: "was cut short at :max_tokens"
  defp warning("runaway"), do: "did not end by itself, and was cut"
  defp warning("silent"), do: "came out silent"
  defp warning(reason), do: "ended with #{inspect(reason)}"

  defp sum(values) do
    case Enum.reject(values, &is_nil/1) do
      [] -> nil
      values -> Enum.sum(values)
    end
  end
end
