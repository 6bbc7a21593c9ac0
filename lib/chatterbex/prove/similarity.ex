defmodule Chatterbex.Prove.Similarity do
  @moduledoc false
  # How similar two recordings of one sentence from the same seed are.

  alias Chatterbex.Audio

  @frame_milliseconds 20

  # One mel frame, which is inaudible.
  @max_seconds 0.02
  @max_loudness 0.5
  @least_envelope 0.98

  @typedoc """
  The second recording against the first.

    * `seconds` - how much longer it is
    * `loudness` - how much louder, in LU; `nil` if one of them is silent
    * `envelope` - the correlation of their levels over time, -1.0 to 1.0, `nil` if one of them has only one level
    * `difference` - the level of what is left when one is taken from the other, in dB below the first; `nil` where they
      are equal, or of different lengths
    * `equal` - whether all samples are
  """
  @type t :: %{
          seconds: float,
          loudness: float | nil,
          envelope: float | nil,
          difference: float | nil,
          equal: boolean
        }

  @doc """
  Compares two recordings; their loudness is that of `Chatterbex.Audio.loudness/1`.
  """
  @spec compare({Audio.t(), float | :silent}, {Audio.t(), float | :silent}) :: t
  def compare({one, loudness}, {other, other_loudness}) do
    %{
      seconds: Audio.duration(other) - Audio.duration(one),
      loudness: if(is_float(loudness) and is_float(other_loudness), do: other_loudness - loudness),
      envelope: correlation(envelope(one), envelope(other)),
      difference: difference(one.samples, other.samples),
      equal: one.samples == other.samples
    }
  end

  @doc """
  Whether it is the same speech. It is not if one token was sampled differently.
  """
  @spec same?(t) :: boolean
  def same?(%{equal: true}), do: true
  def same?(%{loudness: nil}), do: false
  def same?(%{envelope: nil}), do: false

  def same?(similarity) do
    Float.round(abs(similarity.seconds), 4) <= @max_seconds and abs(similarity.loudness) <= @max_loudness and
      similarity.envelope >= @least_envelope
  end

  # The root mean square of each frame.
  defp envelope(%Audio{samples: samples, sample_rate: rate, channels: channels}) do
    bytes = div(rate * @frame_milliseconds, 1000) * channels * 4
    for <<frame::binary-size(bytes) <- samples>>, do: level(frame)
  end

  defp level(samples) do
    {sum, count} =
      for <<value::float-32-little <- samples>>, reduce: {0.0, 0} do
        {sum, count} -> {sum + value * value, count + 1}
      end

    :math.sqrt(sum / max(count, 1))
  end

  # Over the part that both have.
  defp correlation(one, other) do
    pairs = Enum.zip(one, other)
    count = max(length(pairs), 1)
    mean = (pairs |> Enum.map(&elem(&1, 0)) |> Enum.sum()) / count
    other_mean = (pairs |> Enum.map(&elem(&1, 1)) |> Enum.sum()) / count

    {both, first, second} =
      Enum.reduce(pairs, {0.0, 0.0, 0.0}, fn {x, y}, {both, first, second} ->
        {x, y} = {x - mean, y - other_mean}
        {both + x * y, first + x * x, second + y * y}
      end)

    if first > 0 and second > 0, do: both / :math.sqrt(first * second)
  end

  defp difference(samples, samples), do: nil
  defp difference(one, other) when byte_size(one) != byte_size(other), do: nil

  defp difference(one, other) do
    {left, all} = squares(one, other, 0.0, 0.0)
    if all > 0, do: 10 * :math.log10(left / all)
  end

  defp squares(<<x::float-32-little, one::binary>>, <<y::float-32-little, other::binary>>, left, all),
    do: squares(one, other, left + (x - y) * (x - y), all + x * x)

  defp squares(_one, _other, left, all), do: {left, all}
end
