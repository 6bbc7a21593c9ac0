defmodule Chatterbex.Native.Audio do
  @moduledoc false
  # The NIFs of native/audio. They need no Python: a node that has none can read and write audio.

  alias Chatterbex.Native.Library

  @typep error :: {:error, {atom, String.t(), map}}

  @spec wav_encode(binary, pos_integer, pos_integer, :s16 | :s24 | :f32) :: {:ok, binary} | error
  def wav_encode(samples, sample_rate, channels, format) do
    first_call(fn -> __MODULE__.wav_encode(samples, sample_rate, channels, format) end)
  end

  @spec wav_decode(binary) ::
          {:ok, %{samples: binary, sample_rate: pos_integer, channels: pos_integer}} | error
  def wav_decode(wav), do: first_call(fn -> __MODULE__.wav_decode(wav) end)

  @spec pcm16(binary) :: {:ok, binary} | error
  def pcm16(samples), do: first_call(fn -> __MODULE__.pcm16(samples) end)

  defp first_call(again) do
    Library.first_call(:audio, fn -> :erlang.load_nif(Library.path(:audio), 0) end, again)
  end
end
