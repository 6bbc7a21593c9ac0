defmodule Chatterbex.Audio.Stretcher do
  @moduledoc false
  # Changes the pace of speech as it arrives, and keeps the pitch.

  alias Chatterbex.{Audio, Error, Native}
  alias Chatterbex.Audio.Samples

  @doc """
  The audio of an Enumerable, all of one form, `factor` times as fast: from 0.25 to 4.0. Raises `Chatterbex.Error`.
  """
  @spec stream(Enumerable.t(), float) :: Enumerable.t()
  def stream(audio, factor) when factor == 1.0, do: audio

  def stream(audio, factor) do
    Stream.transform(audio, fn -> nil end, &push(&1, &2, factor), &finish/1, fn _state -> :ok end)
  end

  defp push(audio, nil, factor) do
    stretcher = value!(Native.Audio.stretcher_new(factor, audio.sample_rate, audio.channels))
    push(audio, {stretcher, audio}, factor)
  end

  defp push(audio, {stretcher, first}, _factor) do
    samples = value!(Native.Audio.flow_push(stretcher, audio.samples))
    {part(audio, samples), {stretcher, first}}
  end

  defp finish(nil), do: {[], nil}

  defp finish({stretcher, first}) do
    {samples, []} = value!(Native.Audio.flow_finish(stretcher))
    {part(first, samples), nil}
  end

  defp part(_audio, ""), do: []
  defp part(%Audio{} = audio, samples), do: [%{audio | samples: samples}]

  defp value!(result), do: result |> Samples.from_native() |> Error.unwrap!()
end
