defmodule Chatterbex.Audio.PlottingTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error}

  defp speech do
    {:ok, speech} = Audio.read("test/fixtures/audio/speech.flac")
    speech
  end

  # Width, height and the rows of a PNG file of three bytes a pixel; its checksums are checked.
  defp png(<<0x89, "PNG\r\n", 0x1A, "\n", chunks::binary>>) do
    chunks = chunks(chunks)
    <<width::32, height::32, 8, 2, 0, 0, 0>> = chunks["IHDR"]
    data = :zlib.uncompress(chunks["IDAT"])
    assert byte_size(data) == height * (1 + 3 * width)
    {width, height}
  end

  defp chunks(<<length::32, type::binary-size(4), data::binary-size(length), crc::32, rest::binary>>) do
    assert :erlang.crc32([type, data]) == crc

    if type == "IEND",
      do: assert(rest == "") && %{},
      else: Map.update(chunks(rest), type, data, &(data <> &1))
  end

  # The elements of an SVG file and their attributes; there is nothing else in it but labels.
  defp elements(svg) do
    element = ~r{<([a-z]+)((?: [a-zA-Z-]+="[^"<>]*")+)(?:/>|>[^<>]*</\1>|>)}
    assert String.trim(String.replace(svg, element, "")) == "</svg>"

    for [_all, name, attributes] <- Regex.scan(element, svg) do
      {name,
       Map.new(Regex.scan(~r/ ([a-zA-Z-]+)="([^"]*)"/, attributes), fn [_, key, value] -> {key, value} end)}
    end
  end

  test "SVG, with the spectrogram as an embedded image" do
    {:ok, svg} = Audio.plot(speech())
    [{"svg", about} | elements] = elements(svg)
    assert {about["width"], about["height"]} == {"800", "400"}

    assert [{"image", image}] = Enum.filter(elements, &match?({"image", _}, &1))
    "data:image/png;base64," <> picture = image["href"]
    {width, height} = picture |> Base.decode64!() |> png()
    assert {to_string(width), to_string(height)} == {image["width"], image["height"]}

    assert [{"path", path}] = Enum.filter(elements, &match?({"path", _}, &1))
    assert length(String.split(path["d"], "M", trim: true)) == width
    assert svg =~ ">0.2 s<"
    assert svg =~ ">10 kHz<"
  end

  test "PNG, of the requested size" do
    for show <- [:both, :waveform, :spectrogram] do
      {:ok, png} = Audio.plot(speech(), format: :png, show: show, width: 321, height: 200)
      assert png(png) == {321, 200}
    end
  end

  test "one part alone" do
    names = fn options ->
      {:ok, svg} = Audio.plot(speech(), options)
      svg |> elements() |> Enum.map(&elem(&1, 0))
    end

    assert "path" in names.(show: :waveform) and "image" not in names.(show: :waveform)
    assert "image" in names.(show: :spectrogram) and "path" not in names.(show: :spectrogram)
  end

  test "silence and empty audio can be plotted too" do
    for ms <- [0, 1_000], format <- [:svg, :png] do
      {:ok, silence} = Audio.silence(ms)
      assert {:ok, <<_::binary>>} = Audio.plot(silence, format: format)
    end
  end

  test "refuses nonsense" do
    for options <- [[format: :jpg], [show: :all], [width: 159], [height: 4_097], [size: 1], nil] do
      assert {:error, %Error{reason: :invalid_option}} = Audio.plot(speech(), options)
    end

    for {audio, says} <- [
          {%Audio{samples: <<0x7FC00000::32-little>>, sample_rate: 24_000}, "not finite"},
          {%Audio{samples: <<0::65*32>>, sample_rate: 24_000, channels: 65}, "at most 64"},
          {%Audio{samples: "abc", sample_rate: 24_000}, "this is not audio"}
        ] do
      assert {:error, %Error{reason: :invalid_audio, message: message}} = Audio.plot(audio)
      assert message =~ says
    end
  end
end
