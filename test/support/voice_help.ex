defmodule Chatterbex.VoiceHelp do
  @moduledoc """
  Saved voices, made without a model.
  """

  alias Chatterbex.Voice.Safetensors

  @doc """
  The bytes of a safetensors file: `tensors` are `{name, dtype, shape, bytes}`.
  """
  def safetensors(tensors, marks) do
    {entries, {data, _at}} =
      Enum.map_reduce(tensors, {"", 0}, fn {name, dtype, shape, bytes}, {data, at} ->
        to = at + byte_size(bytes)
        {{name, %{dtype: dtype, shape: shape, data_offsets: [at, to]}}, {data <> bytes, to}}
      end)

    entries |> Map.new() |> Map.put("__metadata__", marks) |> file(data)
  end

  @doc """
  A safetensors file with this header, a map or a string, whatever it says.
  """
  def file(header, data) do
    header = if is_binary(header), do: header, else: Chatterbex.JSON.encode(header)
    header = header <> String.duplicate(" ", Integer.mod(-byte_size(header), 8))
    <<byte_size(header)::64-little, header::binary, data::binary>>
  end

  @doc """
  The bytes of a voice as it is saved, which a model of the family `turbo` can speak in. Its prompt is a fifth of a second long.
  """
  def voice(marks \\ %{}, seed \\ 0) do
    :rand.seed(:exsss, seed)

    [
      {"gen.embedding", "F32", [1, 192], floats(192)},
      {"gen.prompt_feat", "F32", [1, 10, 80], floats(10 * 80)},
      {"gen.prompt_token", "I64", [1, 5], tokens(5)},
      {"t3.cond_prompt_speech_tokens", "I64", [1, 20], tokens(20)},
      {"t3.emotion_adv", "F32", [1, 1, 1], floats(1)},
      {"t3.speaker_emb", "F32", [1, 256], floats(256)}
    ]
    |> Enum.sort_by(fn {_name, dtype, _shape, _bytes} -> dtype != "I64" end)
    |> safetensors(%{"chatterbex_voice" => "1", "family" => "turbo"})
    |> Safetensors.seal(marks)
  end

  defp floats(count), do: for(_ <- 1..count, into: "", do: <<:rand.normal()::float-32-little>>)
  defp tokens(count), do: for(_ <- 1..count, into: "", do: <<:rand.uniform(6561) - 1::64-little>>)

  @doc """
  So many seconds of a tone, as audio.
  """
  def tone(seconds, options \\ []) do
    rate = Keyword.get(options, :sample_rate, 24_000)
    level = Keyword.get(options, :level, 0.5)
    channels = Keyword.get(options, :channels, 1)
    # A second with a whole number of waves, repeated as needed.
    second =
      for n <- 0..(rate - 1),
          into: "",
          do: frame(level * :math.sin(n / rate * 440 * 2 * :math.pi()), channels)

    frames = trunc(seconds * rate)
    samples = :binary.copy(second, div(frames, rate) + 1)

    %Chatterbex.Audio{
      samples: binary_part(samples, 0, 4 * channels * frames),
      sample_rate: rate,
      channels: channels
    }
  end

  defp frame(sample, channels), do: :binary.copy(<<sample::float-32-little>>, channels)
end
