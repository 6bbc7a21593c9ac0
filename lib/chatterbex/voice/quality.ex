defmodule Chatterbex.Voice.Quality do
  @moduledoc false
  # Warnings about the recording that a voice was made from, in words.

  # Seconds, LUFS and shares at which the difference becomes audible.
  @short 10
  @long 60
  @quiet -40
  @clipped 0.001
  @pauses 0.8
  @narrow 16_000

  @doc """
  Warnings for figures of a recording, those that there are: `:seconds`, `:loudness` (LUFS), `:clipped` and `:quiet`
  (shares of samples), `:sample_rate`.
  """
  @spec warnings(map) :: [String.t()]
  def warnings(figures),
    do: Enum.flat_map([:length, :level, :clipping, :silence, :rate], &List.wrap(warning(&1, figures)))

  defp warning(:length, %{seconds: seconds}) when seconds < @short,
    do: "it is #{number(seconds)} s long: with 10 to 15 s the voice is more like the speaker's"

  defp warning(:length, %{seconds: seconds}) when seconds > @long,
    do:
      "it is #{number(seconds)} s long, but the model mostly uses the first 10 to 15 s: put the best part first"

  defp warning(:level, %{loudness: loudness}) when loudness < @quiet,
    do: "it is quiet (#{number(loudness)} LUFS): speak closer to the microphone, about -23 LUFS is usual"

  defp warning(:clipping, %{clipped: clipped}) when clipped > @clipped,
    do: "#{percent(clipped)} of it is clipped, which is heard as distortion: record it again with less gain"

  # Otherwise all of a quiet recording would count as silent.
  defp warning(:silence, %{quiet: quiet, loudness: loudness}) when quiet > @pauses and loudness >= @quiet,
    do: "#{percent(quiet)} of it is silent: cut the pauses out"

  defp warning(:rate, %{sample_rate: rate}) when rate < @narrow,
    do: "it has #{rate} samples a second, as a telephone has: with 24000 or more the voice is brighter"

  defp warning(_aspect, _figures), do: nil

  defp number(number), do: :erlang.float_to_binary(number * 1.0, [:compact, decimals: 1])
  defp percent(share), do: "#{number(share * 100)} %"
end
