defmodule Chatterbex.BrowserHelp do
  @moduledoc """
  Pages whose sound is recorded, and what was recorded.
  """

  import ExUnit.Callbacks

  alias Chatterbex.Chromium

  @record Path.expand("../fixtures/browser/record.js", __DIR__)

  @doc """
  Starts a browser for the tests of a module.
  """
  def start_browser(arguments \\ []) do
    dir = Chatterbex.TestHelp.temporary_path("chatterbex-browser")
    on_exit(fn -> File.rm_rf!(dir) end)
    start_supervised!({Chromium, dir: dir, arguments: arguments})
  end

  @doc """
  Opens a page that records. `rate` is the rate of its device.
  """
  def open(browser, url, rate \\ 24_000),
    do: Chromium.open(browser, url, before: "window.deviceRate = #{rate};" <> File.read!(@record))

  @doc """
  All that sounded, as 32-bit floats; `n` counts what is connected to the device, from 0.
  """
  def recorded(page, n \\ 0),
    do: page |> Chromium.js("return recording.bytes(#{n})") |> Base.decode64!()

  @doc """
  What sounded of all that is connected to the device, without any silence.
  """
  def heard(page) do
    count = Chromium.js(page, "return recording.count()")
    for n <- 0..(count - 1)//1, sound = sounding(recorded(page, n)), sound != "", do: sound
  end

  @doc """
  Samples without the silence before and after them.
  """
  def trim(<<zero::float-little-32, rest::binary>>) when zero == 0, do: trim(rest)
  def trim(samples), do: trim_end(samples, byte_size(samples))

  defp trim_end(_samples, 0), do: ""

  defp trim_end(samples, size) do
    case binary_part(samples, size - 4, 4) do
      <<zero::float-little-32>> when zero == 0 -> trim_end(samples, size - 4)
      _sound -> binary_part(samples, 0, size)
    end
  end

  @doc """
  Samples without any silence.
  """
  def sounding(samples),
    do: for(<<sample::float-little-32 <- samples>>, sample != 0, into: "", do: <<sample::float-little-32>>)

  @doc """
  16-bit samples as 32-bit floats.
  """
  def floats(pcm),
    do: for(<<sample::little-signed-16 <- pcm>>, into: "", do: <<sample / 32_768::float-little-32>>)

  @doc """
  Noise of `count` 16-bit samples, none of them silent.
  """
  def noise(count, seed) do
    state = :rand.seed_s(:exsss, seed)

    {samples, _state} =
      Enum.map_reduce(1..count, state, fn _n, state ->
        {sample, state} = :rand.uniform_s(20_000, state)
        {<<(sample - 10_000) * 2 + 1::little-signed-16>>, state}
      end)

    IO.iodata_to_binary(samples)
  end

  @doc """
  JavaScript that makes a `Uint8Array` of bytes.
  """
  def bytes(binary), do: ~s|Uint8Array.from(atob("#{Base.encode64(binary)}"), c => c.charCodeAt(0))|
end
