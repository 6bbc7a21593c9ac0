defmodule Chatterbex.DownloadBarTest do
  use ExUnit.Case, async: true

  alias Chatterbex.DownloadBar

  @progress %{status: :fetching, bytes: 0, total: 1_000_000_000, file: "s3gen.safetensors", message: nil}

  # The lines for bytes at times in seconds.
  defp lines(steps, progress \\ @progress) do
    {lines, _samples} =
      Enum.map_reduce(steps, [], fn {seconds, bytes}, samples ->
        DownloadBar.update(samples, %{progress | bytes: bytes}, seconds * 1_000)
      end)

    lines
  end

  test "how much is here, and, after a second, the speed and the time left" do
    assert lines([{0, 0}, {1, 100_000_000}, {2, 200_000_000}]) == [
             "[                        ] 0 % of 1.0 GB",
             "[==                      ] 10 % of 1.0 GB, 100 MB/s, 9 s left",
             "[====                    ] 20 % of 1.0 GB, 100 MB/s, 8 s left"
           ]

    assert [_first, "[========================] 100 % of 1.0 GB, 100 MB/s, 0 s left"] =
             lines([{0, 500_000_000}, {5, 1_000_000_000}])

    assert lines([{0, 0}], %{@progress | total: 0}) == ["[========================] 100 % of 0 bytes"]
  end

  test "what was here before the download says nothing of its speed, nor does what was long ago" do
    assert [_first, line] = lines([{0, 900_000_000}, {1, 910_000_000}])
    assert line =~ "91 % of 1.0 GB, 10 MB/s, 9 s left"

    steps =
      for second <- 0..20, do: {second, if(second < 10, do: second * 50_000_000, else: 500_000_000 + second)}

    assert List.last(lines(steps)) =~ "50 % of 1.0 GB, 1 bytes/s, "
  end

  test "a file that begins again" do
    assert ["[=" <> _, again, after_it] = lines([{0, 50_000_000}, {1, 10_000_000}, {2, 20_000_000}])
    refute again =~ "/s"
    assert after_it =~ "2 % of 1.0 GB, 10 MB/s, "
  end

  test "long times" do
    for {bytes, left} <- [{10_000_000, "2 min"}, {100_000, "2.8 h"}],
        do: assert(List.last(lines([{0, 0}, {1, bytes}])) =~ "#{left} left")
  end

  test "what is waited for, and what is checked" do
    {line, []} = DownloadBar.update([], %{@progress | status: :waiting, message: "the hub asks to wait"}, 0)
    assert line == "the hub asks to wait"
    {line, _samples} = DownloadBar.update([], %{@progress | status: :checking}, 0)
    assert line =~ "0 % of 1.0 GB, checking s3gen.safetensors"
  end
end
