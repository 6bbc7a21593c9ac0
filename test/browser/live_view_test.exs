defmodule Chatterbex.Browser.LiveViewTest do
  use ExUnit.Case, async: false

  import Chatterbex.BrowserHelp
  import Chatterbex.TestHelp, only: [start_server: 1]

  alias Chatterbex.{Audio, Chromium, PhoenixBeside}

  @moduletag :browser
  @moduletag skip: Chromium.missing() || PhoenixBeside.missing()

  # It is compiled when the tests run.
  @endpoint Chatterbex.Page.Endpoint
  @compile {:no_warn_undefined, @endpoint}

  setup_all do
    :ok = PhoenixBeside.load!()

    Application.put_env(:chatterbex_page, @endpoint,
      adapter: Bandit.PhoenixAdapter,
      http: [ip: {127, 0, 0, 1}, port: 0],
      server: true,
      secret_key_base: String.duplicate("chatterbex", 8),
      live_view: [signing_salt: "0123456789"],
      pubsub_server: Chatterbex.Page.PubSub
    )

    start_supervised!({Module.concat(Phoenix, PubSub), name: Chatterbex.Page.PubSub})
    start_supervised!(@endpoint)
    {:ok, {_ip, port}} = @endpoint.server_info(:http)
    {:ok, url: "http://localhost:#{port}/", chromium: start_browser()}
  end

  setup context do
    speech = start_server(testing: true)
    Application.put_env(:chatterbex_page, :server, speech)
    Application.put_env(:chatterbex_page, :test, self())
    page = open(context.chromium, context.url)

    Chromium.until(
      page,
      "window.liveSocket && liveSocket.isConnected() && document.querySelector('.phx-connected')"
    )

    assert_receive {:connected, view}
    {:ok, page: page, speech: speech, view: view}
  end

  defp say(page, text, form \\ "form") do
    Chromium.js(page, "document.querySelector('##{form} input').value = #{Chatterbex.JSON.encode(text)}")
    Chromium.click(page, "##{form} button")
  end

  defp expected(speech, text) do
    text
    |> Chatterbex.stream(server: speech)
    |> Enum.map_join(&Audio.to_pcm16!/1)
    |> floats()
    |> sounding()
  end

  defp await_state(page, state),
    do: Chromium.until(page, "document.querySelector('#state').textContent.startsWith('#{state}')")

  # What the only player in use has played.
  defp spoken(page) do
    assert [sound] = heard(page)
    sound
  end

  # One part of what a player receives and shows.
  defp part(page, name, property),
    do:
      Chromium.js(
        page,
        "return document.querySelector('#chatterbex-speech [data-chatterbex=#{name}]')?.#{property}"
      )

  test "speaks the text of a form, with captions and a button meanwhile", %{page: page, speech: speech} do
    text = "This is the first sentence of two. And this is the second one, which is a bit longer."
    assert part(page, "stop", "hidden")
    say(page, text)
    await_state(page, "speaking")

    Chromium.until(
      page,
      "document.querySelector('[data-chatterbex=caption]').textContent === 'This is the first sentence of two.'"
    )

    refute part(page, "stop", "hidden")
    assert part(page, "resume", "hidden")
    assert part(page, "player", "dataset.state") == "playing"

    Chromium.until(
      page,
      "document.querySelector('[data-chatterbex=caption]').textContent.startsWith('And this')"
    )

    await_state(page, "idle")
    assert spoken(page) == expected(speech, text)
    assert part(page, "caption", "textContent") == ""
    assert part(page, "stop", "hidden")
    assert [] = Chromium.faults(page)
  end

  test "sends at most four seconds ahead of the playback", %{page: page, speech: speech} do
    Chromium.js(page, """
    window.parts = 0
    window.addEventListener("phx:chatterbex:chatterbex-speech", ({detail}) => { if (detail.op === "part") parts++ })
    """)

    # Five minutes: 1,200 parts of 250 ms.
    say(page, String.duplicate("A sentence that takes about three seconds to say. ", 100))
    Chromium.until(page, "parts >= 20")
    parts = Chromium.js(page, "return parts")
    assert parts <= 17 + div(byte_size(recorded_all(page)), 6_000 * 4)

    Chromium.click(page, "#chatterbex-speech [data-chatterbex=stop]")
    await_state(page, "idle")
    assert {:ok, %{queue: %{open: 0}}} = Chatterbex.info(server: speech)
  end

  # Longer than the speech: it includes the silence before.
  defp recorded_all(page),
    do: for(n <- 0..1, sound = recorded(page, n), sounding(sound) != "", into: "", do: sound)

  test "its button stops the speech and its generation", %{page: page, speech: speech} do
    say(page, Stream.cycle(["A sentence. "]) |> Enum.take(200) |> Enum.join())
    Chromium.until(page, "recording.sounds()")
    Chromium.click(page, "#chatterbex-speech [data-chatterbex=stop]")
    Chromium.js(page, "return recording.silent(12000)")
    await_state(page, "idle")
    assert part(page, "stop", "hidden")
    assert part(page, "caption", "textContent") == ""
    assert {:ok, %{queue: %{open: 0}}} = Chatterbex.info(server: speech)
  end

  test "the server stops it", %{page: page} do
    say(page, String.duplicate("A sentence that takes a while. ", 20))
    Chromium.until(page, "recording.sounds()")
    Chromium.click(page, "#quiet")
    await_state(page, "idle")
    Chromium.js(page, "return recording.silent(12000)")
    assert part(page, "stop", "hidden")
  end

  test "new speech ends the old", %{page: page, speech: speech} do
    new = "This is new."
    say(page, String.duplicate("A sentence that takes a while. ", 20))
    Chromium.until(page, "recording.sounds()")
    say(page, new)
    Chromium.until(page, "document.querySelector('[data-chatterbex=caption]').textContent === 'This is new.'")
    await_state(page, "idle")
    all = spoken(page)
    expected = expected(speech, new)
    assert binary_part(all, byte_size(all), -byte_size(expected)) == expected
    assert {:ok, %{queue: %{open: 0}}} = Chatterbex.info(server: speech)
  end

  test "two players speak at the same time", %{page: page, speech: speech} do
    {one, two} =
      {"The first player says this, which takes a while.",
       "And the second one says something else at the same time."}

    say(page, one)
    # By then the layout is stable, and the next button does not move.
    Chromium.until(
      page,
      "document.querySelector('[data-chatterbex=caption]').textContent === #{Chatterbex.JSON.encode(one)}"
    )

    say(page, two, "other-form")
    await_state(page, "speaking speaking")
    await_state(page, "idle idle")

    assert Enum.sort(heard(page)) ==
             Enum.sort([expected(speech, one), expected(speech, two)])
  end

  test "shows what went wrong, until the next speech", %{page: page, speech: speech, view: view} do
    say(page, "   ")
    alert = "document.querySelector('#chatterbex-speech [role=alert]')"
    assert Chromium.until(page, "#{alert}?.textContent") =~ "the text is blank"
    await_state(page, "idle")

    Chatterbex.Test.stub(
      fn %{piece: piece} -> if piece =~ "Bad", do: {:error, :out_of_memory}, else: :tone end,
      from: view
    )

    say(page, "A good sentence that is spoken. Bad.")
    Chromium.until(page, "#{alert}?.textContent.includes('out_of_memory')")
    await_state(page, "idle")
    assert part(page, "stop", "hidden")

    say(page, "Good.")
    Chromium.until(page, "!#{alert}")
    await_state(page, "idle")
    good = expected(speech, "Good.")
    all = spoken(page)
    assert binary_part(all, byte_size(all), -byte_size(good)) == good
  end

  test "after a lost connection the received audio is played, and the page can speak again", %{
    page: page,
    speech: speech
  } do
    say(page, String.duplicate("A sentence that takes about three seconds to say. ", 20))
    Chromium.until(page, "recording.sounds()")
    Chromium.js(page, "liveSocket.disconnect()")
    Chromium.js(page, "await new Promise(resolve => liveSocket.connect(resolve) || setTimeout(resolve, 100))")
    Chromium.until(page, "liveSocket.isConnected() && document.querySelector('.phx-connected')")
    await_state(page, "idle")
    Chromium.until(page, "document.querySelector('[data-chatterbex=stop]').hidden")
    before = byte_size(spoken(page))
    assert {:ok, %{queue: %{open: 0}}} = Chatterbex.info(server: speech)

    say(page, "Here again.")
    await_state(page, "speaking")
    await_state(page, "idle")
    all = spoken(page)
    assert binary_part(all, before, byte_size(all) - before) == expected(speech, "Here again.")
  end

  test "loses nothing on a slow network", %{page: page, speech: speech} do
    text = "On a slow network there are pauses, but nothing is missing."
    slow = %{offline: false, latency: 20, downloadThroughput: 50_000, uploadThroughput: 50_000}
    {:ok, _} = Chromium.call(page, "Network.emulateNetworkConditions", slow)
    say(page, text)
    await_state(page, "speaking")
    await_state(page, "idle")
    assert spoken(page) == expected(speech, text)
  end

  test "messages of other streams and unknown events are ignored", %{page: page, view: view} do
    send(view, {:chatterbex, make_ref(), :hello})
    await_state(page, "idle idle :hello")

    Chromium.js(page, """
    const view = liveSocket.main
    for (const payload of [{}, {speech: 1}, {speech: "x", part: "y"}])
      for (const event of ["played", "ended", "other"])
        view.pushHookEvent(document.querySelector("#chatterbex-speech"), null, "chatterbex:" + event, payload, () => {})
    """)

    say(page, "Still here.")
    await_state(page, "speaking")
    await_state(page, "idle")
    assert Process.alive?(view)
  end
end
