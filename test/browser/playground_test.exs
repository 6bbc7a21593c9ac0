defmodule Chatterbex.Browser.PlaygroundTest do
  use ExUnit.Case, async: true

  import Chatterbex.BrowserHelp
  import Chatterbex.TestHelp, only: [start_server: 1]

  alias Chatterbex.{Audio, Chromium, HTTP}

  @moduletag :browser
  @moduletag skip: Chromium.missing()

  @text "This page plays the speech while it is being made."

  setup_all do
    {:ok, chromium: start_browser()}
  end

  setup context do
    speech = start_server(testing: true)
    server = start_supervised!({HTTP.Server, server: speech, port: 0})
    page = open(context.chromium, "http://127.0.0.1:#{HTTP.Server.port(server)}/")
    Chromium.until(page, "document.querySelector('#voice').options.length > 0")
    Chromium.js(page, "document.querySelector('#text').value = #{Chatterbex.JSON.encode(@text)}")
    {:ok, audio} = Chatterbex.generate(speech, @text)
    {:ok, page: page, pcm: Audio.to_pcm16!(audio)}
  end

  defp status(page), do: Chromium.js(page, "return document.querySelector('#status').textContent")
  defp disabled(page, id), do: Chromium.js(page, "return document.querySelector('##{id}').disabled")

  test "plays what the server sends, and offers it as a file", %{page: page, pcm: pcm} do
    Chromium.js(page, """
    const make = URL.createObjectURL
    URL.createObjectURL = blob => {
      window.file = blob
      return make(blob)
    }
    """)

    Chromium.click(page, "#speak")
    Chromium.until(page, "!document.querySelector('#download').hidden")
    Chromium.until(page, "document.querySelector('#stop').disabled")
    assert sounding(recorded(page)) == sounding(floats(pcm))
    assert status(page) =~ ~r/^3\.\d s of audio; the first after \d+ ms/
    refute disabled(page, "speak")

    file = "return file.arrayBuffer().then(all => recording.base64(new Uint8Array(all)))"
    assert {:ok, audio} = page |> Chromium.js(file) |> Base.decode64!() |> Audio.from_wav()
    assert Audio.to_pcm16!(audio) == pcm
    assert [] = Chromium.faults(page)
  end

  test "loses nothing on a slow network", %{page: page, pcm: pcm} do
    # Bytes per second: less than the 48,000 that speech has.
    slow = %{offline: false, latency: 20, downloadThroughput: 40_000, uploadThroughput: 40_000}
    {:ok, _} = Chromium.call(page, "Network.emulateNetworkConditions", slow)
    Chromium.click(page, "#speak")
    Chromium.until(page, "!document.querySelector('#download').hidden")
    Chromium.until(page, "document.querySelector('#stop').disabled")
    assert sounding(recorded(page)) == sounding(floats(pcm))
  end

  test "stops", %{page: page, pcm: pcm} do
    Chromium.click(page, "#speak")
    Chromium.until(page, "recording.sounds()")
    Chromium.click(page, "#stop")
    Chromium.js(page, "return recording.silent(4800)")
    assert byte_size(sounding(recorded(page))) < byte_size(sounding(floats(pcm)))
    assert disabled(page, "stop")
    refute disabled(page, "speak")
  end
end
