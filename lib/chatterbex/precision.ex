defmodule Chatterbex.Precision do
  @moduledoc false
  # The measurements for `precision: :auto`, as text.

  alias Chatterbex.{JSON, Names}

  @figures [
    kl_divergence: {"KL divergence ", 5, 1, " nats"},
    changed_tokens: {"", 2, 100, "% of tokens changed"},
    mel_snr: {"mel ", 1, 1, " dB"},
    waveform_snr: {"waveform ", 1, 1, " dB below the signal"}
  ]

  @doc """
  A verdict as `Chatterbex.info/1` has it, in one line.

      iex> t3 = %{precision: "int8", passed: true, kl_divergence: 0.00092, changed_tokens: 0.004, positions: 512}
      iex> Chatterbex.Precision.text(%{t3: t3, flow: nil})
      "T3 in int8 (KL divergence 0.00092 nats, 0.40% of tokens changed), flow in float32"

      iex> flow = %{precision: "bfloat16", passed: false, mel_snr: 31.04, waveform_snr: nil}
      iex> Chatterbex.Precision.text(%{t3: nil, flow: flow})
      "flow in float32, because bfloat16 is too far from it (mel 31.0 dB, waveform not a number)"
  """
  @spec text(map) :: String.t()
  def text(%{t3: nil, flow: flow}), do: part("flow", flow)
  def text(%{t3: t3, flow: flow}), do: part("T3", t3) <> ", " <> part("flow", flow)

  @doc """
  Describes what a model computes in, from `Chatterbex.info/1`, and why, if that was measured.

      iex> Chatterbex.Precision.used(%{t3: "float32", flow: "bfloat16", verdict: nil})
      "T3 in float32, flow in bfloat16"
  """
  @spec used(map) :: String.t()
  def used(%{verdict: %{} = verdict}), do: text(verdict)
  def used(%{t3: nil, flow: flow}), do: "flow in #{flow}"
  def used(%{t3: t3, flow: flow}), do: "T3 in #{t3}, flow in #{flow}"

  defp part(name, nil), do: "#{name} in float32"

  defp part(name, %{precision: precision, passed: passed} = part) do
    figures = for {figure, how} <- @figures, is_map_key(part, figure), do: figure(part[figure], how)
    why = if passed, do: precision, else: "float32, because #{precision} is too far from it"
    "#{name} in #{why} (#{Enum.join(figures, ", ")})"
  end

  defp figure(nil, {name, _decimals, _factor, _unit}), do: name <> "not a number"

  defp figure(value, {name, decimals, factor, unit}),
    do: name <> :erlang.float_to_binary(value * factor * 1.0, decimals: decimals) <> unit

  @doc """
  The folder where verdicts are kept.
  """
  @spec folder(Path.t()) :: Path.t()
  def folder(home), do: Path.join(home, "precision")

  @doc """
  The newest saved verdict on a model's files, or `nil`.
  """
  @spec newest(Path.t(), atom, Path.t()) :: map | nil
  def newest(home, model, files) do
    found =
      for path <- Path.wildcard(Path.join(folder(home), "#{model}-*.json")),
          {:ok, %{mtime: time}} <- [File.stat(path, time: :posix)],
          {:ok, text} <- [File.read(path)],
          {:ok, %{"folder" => ^files, "t3" => t3, "flow" => flow} = verdict} <- [JSON.decode(text)],
          part?(t3) and part?(flow),
          do: {time, Names.atoms(verdict)}

    found |> Enum.max_by(&elem(&1, 0), fn -> {0, nil} end) |> elem(1)
  end

  defp part?(%{"precision" => precision, "passed" => passed}), do: is_binary(precision) and is_boolean(passed)
  defp part?(part), do: is_nil(part)
end
