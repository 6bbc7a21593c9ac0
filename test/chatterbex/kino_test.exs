defmodule Chatterbex.KinoTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Audio

  @moduletag skip: if(Code.ensure_loaded?(Kino.Render), do: false, else: "Kino is not installed")

  @compile {:no_warn_undefined, Kino.Render}

  setup_all do
    {:ok, _apps} = Application.ensure_all_started(:kino)
    :ok
  end

  test "audio is shown as its waveform above a player" do
    assert %{type: :grid, outputs: [picture, player], columns: 1} =
             Kino.Render.to_livebook(Chatterbex.VoiceHelp.tone(1))

    assert %{type: :image, mime_type: "image/svg+xml", content: "<svg " <> _picture} = picture
    assert %{type: :js, js_view: %{pid: pid, ref: ref}} = player

    # Connects as Livebook's page does.
    send(pid, {:connect, self(), %{origin: "test", ref: ref}})
    assert_receive {:connect_reply, {:binary, %{type: "audio/wav"}, wav}, %{ref: ^ref}}, 5_000
    assert {:ok, %Audio{sample_rate: 24_000} = audio} = Audio.from_format(wav)
    assert Audio.duration(audio) == 1.0
  end

  test "audio that is damaged is shown as any other value" do
    assert %{type: :terminal_text, text: text} =
             Kino.Render.to_livebook(%Audio{samples: <<1>>, sample_rate: 24_000})

    assert text =~ "Chatterbex.Audio"
  end
end
