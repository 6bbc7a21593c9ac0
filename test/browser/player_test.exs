defmodule Chatterbex.Browser.PlayerTest do
  use ExUnit.Case, async: true

  import Chatterbex.BrowserHelp

  alias Chatterbex.{Chromium, HTTP}

  @moduletag :browser
  @moduletag skip: Chromium.missing()

  setup_all do
    server = start_supervised!({HTTP.Server, port: 0})
    browser = start_browser(["--host-resolver-rules=MAP insecure.test 127.0.0.1"])
    {:ok, chromium: browser, port: HTTP.Server.port(server)}
  end

  # A page with only a player, which a user has clicked, and the samples to play as `pcm`.
  defp player(context, options) do
    host = Keyword.get(options, :host, "127.0.0.1")

    page =
      open(context.chromium, "http://#{host}:#{context.port}/health", Keyword.get(options, :rate, 24_000))

    Chromium.js(
      page,
      """
      const {Player} = await import("/chatterbex.js")
      window.states = []
      window.player = new Player({onstate: state => states.push(state)})
      window.log = []
      window.begin = (rate = 24000) => player.begin({
        sampleRate: rate,
        onplaying: (part, about) => log.push(["playing", part, about]),
        onplayed: (part, about) => log.push(["played", part, about]),
        onended: how => log.push([how])
      })
      // Until a part was played, which is when its last sample is handed to the device.
      window.played = async part => {
        while (!log.some(([what, which]) => what === "played" && which === part))
          await new Promise(resolve => setTimeout(resolve, 5))
      }
      """,
      gesture: Keyword.get(options, :used, true)
    )

    if pcm = options[:pcm], do: set(page, "pcm", pcm)
    page
  end

  defp set(page, name, pcm), do: Chromium.js(page, "window.#{name} = #{bytes(pcm)}")

  # Plays `pcm`, which the page has, cut into parts of these many bytes. All of it is there before it sounds, so that a
  # pause in it is the player's fault.
  @play """
  window.play = async (pcm, sizes, rate) => {
    const speech = begin(rate)
    await player.context.suspend()
    let at = 0
    for (let n = 0; at < pcm.length; n++) {
      const size = sizes[n % sizes.length]
      speech.push(pcm.subarray(at, at + size), "part " + n)
      at += size
    }
    speech.end()
    await player.resume()
    return speech.done
  }
  """

  test "plays every sample once and in order, wherever the bytes are cut", context do
    pcm = noise(30_000, 1)
    page = player(context, pcm: pcm)
    assert "ended" = Chromium.js(page, @play <> "return play(pcm, [1, 7, 4096, 0, 15001, 2])")
    assert trim(recorded(page)) == floats(pcm)
    assert ["waiting", "playing", "idle"] = Chromium.js(page, "return states")
    assert [] = Chromium.faults(page)
  end

  test "accepts floats and 16-bit integers, and reports when each part begins and ends",
       context do
    pcm = noise(4_000, 2)
    page = player(context, pcm: pcm)

    assert "ended" =
             Chromium.js(page, """
             const integers = new Int16Array(pcm.buffer)
             const speech = begin()
             speech.push(integers.subarray(0, 1000), "one")
             speech.push(Float32Array.from(integers.subarray(1000, 2500), n => n / 32768), "two")
             speech.push(pcm.buffer.slice(5000), "three")
             speech.end()
             speech.push(integers, "too late")
             return speech.done
             """)

    assert trim(recorded(page)) == floats(pcm)

    assert [
             ["playing", 0, "one"],
             ["played", 0, "one"],
             ["playing", 1, "two"],
             ["played", 1, "two"],
             ["playing", 2, "three"],
             ["played", 2, "three"],
             ["ended"]
           ] = Chromium.js(page, "return log")
  end

  for rate <- [8_000, 44_100, 48_000] do
    test "plays without seams at a device rate of #{rate} Hz", context do
      page = player(context, rate: unquote(rate))
      # A tone of 1 kHz at half scale.
      pcm =
        for n <- 0..23_999,
            into: "",
            do: <<round(16_384 * :math.cos(2 * :math.pi() * n / 24))::little-signed-16>>

      set(page, "pcm", pcm)
      assert "ended" = Chromium.js(page, @play <> "return play(pcm, [962, 3, 20000])")
      parts = page |> recorded() |> trim()

      # At both ends the filter lacks samples.
      errors =
        for <<sample::float-little-32 <- parts>>, reduce: {0, []} do
          {n, errors} ->
            {n + 1, [abs(sample - 0.5 * :math.cos(2 * :math.pi() * n * 1000 / unquote(rate))) | errors]}
        end
        |> elem(1)

      assert_in_delta length(errors), unquote(rate), 3
      edge = div(unquote(rate), 100)
      assert errors |> Enum.drop(edge) |> Enum.drop(-edge) |> Enum.max() < 0.0005

      # It is the same, cut or whole.
      assert "ended" = Chromium.js(page, "return play(pcm, [pcm.length])")
      Chromium.js(page, "return recording.silent(2000)")
      all = page |> recorded() |> sounding()
      once = sounding(parts)
      assert all == once <> once
    end
  end

  test "stops: the played part is the beginning, faded out within 5 ms", context do
    pcm = noise(240_000, 3)
    page = player(context, pcm: pcm)

    assert "stopped" =
             Chromium.js(page, """
             const speech = begin()
             speech.push(pcm.subarray(0, 9600), "first")
             speech.push(pcm.subarray(9600), "second")
             await played(0)
             speech.stop()
             speech.push(pcm, "too late")
             await recording.silent(2400)
             return speech.done
             """)

    heard = trim(recorded(page))
    assert byte_size(heard) >= 4_800 * 4
    assert byte_size(heard) < 240_000 * 4
    assert_faded(heard, floats(pcm))

    assert [["playing", 0, "first"], ["played", 0, "first"], ["playing", 1, "second"], ["stopped"]] =
             Chromium.js(page, "return log")

    assert "idle" = Chromium.js(page, "return player.state")
  end

  # The last 5 ms of a stopped sound fade out; everything before is exact.
  defp assert_faded(heard, expected) do
    exact = byte_size(heard) - 120 * 4
    assert binary_part(heard, 0, exact) == binary_part(expected, 0, exact)
    tail = binary_part(heard, exact, 120 * 4)
    loud = binary_part(expected, exact, 120 * 4)

    ratios =
      for {<<a::float-little-32>>, <<b::float-little-32>>} <- Enum.zip(samples(tail), samples(loud)),
          do: a / b

    assert ratios == Enum.sort(ratios, :desc)
    assert hd(ratios) > 0.9
    assert List.last(ratios) < 0.1
  end

  defp samples(binary), do: for(<<sample::binary-4 <- binary>>, do: sample)

  test "new speech ends the old", context do
    {old, new} = {noise(240_000, 4), noise(12_000, 5)}
    page = player(context, pcm: new)
    set(page, "old", old)

    assert ["stopped", "ended"] =
             Chromium.js(page, """
             const first = begin()
             first.push(old.subarray(0, 4800))
             first.push(old.subarray(4800))
             await played(0)
             const second = begin()
             first.push(old)
             second.push(pcm)
             second.end()
             return [await first.done, await second.done]
             """)

    heard = trim(recorded(page))
    before = byte_size(heard) - 12_000 * 4
    assert binary_part(heard, before, 12_000 * 4) == floats(new)
    assert before < 240_000 * 4
    assert_faded(heard |> binary_part(0, before) |> trim(), floats(old))
  end

  test "a slow network causes pauses, but loses and repeats nothing", context do
    pcm = noise(12_000, 6)

    for rate <- [24_000, 48_000] do
      page = player(context, rate: rate, pcm: pcm)

      assert "ended" =
               Chromium.js(
                 page,
                 @play <>
                   """
                   const speech = begin()
                   for (let n = 0; n < 5; n++) {
                     speech.push(pcm.subarray(4800 * n, 4800 * (n + 1)))
                     await played(n)
                     await recording.silent(500)
                   }
                   speech.end()
                   return speech.done
                   """
               )

      slow = recorded(page)
      assert byte_size(trim(slow)) > byte_size(sounding(slow)) + 4 * 500 * 4
      if rate == 24_000, do: assert(sounding(slow) == floats(pcm))

      fresh = player(context, rate: rate, pcm: pcm)
      assert "ended" = Chromium.js(fresh, @play <> "return play(pcm, [pcm.length])")
      assert sounding(slow) == sounding(recorded(fresh))
    end
  end

  test "waits until the page may play sound, and plays everything after a click", context do
    pcm = noise(6_000, 7)
    page = player(context, used: false, pcm: pcm)

    assert "blocked" =
             Chromium.js(
               page,
               @play <>
                 """
                 window.how = play(pcm, [4800])
                 while (player.state !== "blocked") await new Promise(resolve => setTimeout(resolve, 5))
                 return player.state
                 """
             )

    assert [] = Chromium.js(page, "return log")
    :ok = Chromium.click(page, "body")
    assert "ended" = Chromium.js(page, "return how")
    assert trim(recorded(page)) == floats(pcm)
    assert ["waiting", "blocked" | _more] = Chromium.js(page, "return states")
  end

  test "continues after the audio context was suspended", context do
    pcm = noise(24_000, 8)
    page = player(context, pcm: pcm)

    assert ["blocked", "ended"] =
             Chromium.js(
               page,
               @play <>
                 """
                 const how = play(pcm, [2400])
                 await played(2)
                 await player.context.suspend()
                 while (player.state !== "blocked") await new Promise(resolve => setTimeout(resolve, 5))
                 const state = player.state
                 await player.resume()
                 return [state, await how]
                 """
             )

    assert trim(recorded(page)) == floats(pcm)
  end

  test "plays on in a background tab", context do
    pcm = noise(48_000, 9)
    page = player(context, pcm: pcm)
    Chromium.js(page, @play <> "window.speech = begin(); speech.push(pcm.subarray(0, 4800)); await played(0)")
    other = Chromium.open(context.chromium, "about:blank")
    {:ok, _} = Chromium.call(other, "Page.bringToFront")
    Chromium.until(page, "document.hidden")

    assert ["ended", true] =
             Chromium.js(page, """
             for (let at = 4800; at < pcm.length; at += 4800) speech.push(pcm.subarray(at, at + 4800))
             speech.end()
             return [await speech.done, document.hidden]
             """)

    assert sounding(recorded(page)) == floats(pcm)
  end

  test "two players play at the same time, each its own", context do
    {one, two} = {noise(12_000, 10), noise(9_000, 11)}
    page = player(context, pcm: one)
    set(page, "other", two)

    assert ["ended", "ended"] =
             Chromium.js(
               page,
               @play <>
                 """
                 const {Player} = await import("/chatterbex.js")
                 const second = new Player({context: player.context || new AudioContext()})
                 const speech = second.begin({sampleRate: 24000})
                 const how = play(pcm, [4000])
                 speech.push(other)
                 speech.end()
                 const hows = [await how, await speech.done]
                 await second.close()
                 return hows
                 """
             )

    heard = for n <- 0..1, do: page |> recorded(n) |> trim()
    assert Enum.sort(heard) == Enum.sort([floats(one), floats(two)])
  end

  test "plays without an AudioWorklet, as on a page without HTTPS", context do
    pcm = noise(12_000, 12)
    page = player(context, host: "insecure.test")
    assert false == Chromium.js(page, "return isSecureContext")
    set(page, "pcm", pcm)
    assert "ended" = Chromium.js(page, @play <> "return play(pcm, [4000, 33])")
    Chromium.js(page, "return recording.silent(2048)")
    assert trim(recorded(page)) == floats(pcm)
    assert [["playing", 0, "part 0"], ["played", 0, "part 0"] | _more] = Chromium.js(page, "return log")
  end

  test "releases the device when it is closed", context do
    page = player(context, pcm: noise(24_000, 13))

    assert ["stopped", "closed", true] =
             Chromium.js(page, """
             const speech = begin()
             speech.push(pcm)
             await player.close()
             let refused = false
             try { begin() } catch (_closed) { refused = true }
             return [await speech.done, player.context.state, refused]
             """)
  end
end
