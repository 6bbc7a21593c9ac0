defmodule Chatterbex.DownloadBar do
  @moduledoc false
  # One line for a whole download: a bar, how much is here, the speed of the last seconds and the time left.

  alias Chatterbex.{ModelFiles.Download, Terminal}

  @width 24

  # Milliseconds over which the speed is averaged.
  @window 5_000

  @typedoc "Times in milliseconds, each with the bytes that were here then; the newest first."
  @type samples :: [{integer, non_neg_integer}]

  @doc """
  A function for `:on_progress` of `Chatterbex.ModelFiles.download/2` that passes each line to `show`.

  The calling process keeps the samples.
  """
  @spec on_progress((String.t() -> term)) :: (Download.progress() -> term)
  def on_progress(show) do
    key = {__MODULE__, make_ref()}

    fn progress ->
      {line, samples} = update(Process.get(key, []), progress, System.monotonic_time(:millisecond))
      Process.put(key, samples)
      show.(line)
    end
  end

  @doc """
  The line for a progress, and the samples with it.

      iex> progress = %{status: :fetching, bytes: 500_000_000, total: 2_000_000_000, file: "a", message: nil}
      iex> {line, _samples} = Chatterbex.DownloadBar.update([{0, 300_000_000}], progress, 2_000)
      iex> line
      "[======                  ] 25 % of 2.0 GB, 100 MB/s, 15 s left"
  """
  @spec update(samples, Download.progress(), integer) :: {String.t(), samples}
  def update(samples, %{status: :waiting, message: message}, _now), do: {message, samples}

  def update(samples, %{bytes: bytes, total: total} = progress, now) do
    # A file whose checksum is wrong is fetched again, so that there are fewer bytes than before.
    samples = [
      {now, bytes} | Enum.filter(samples, fn {time, here} -> now - time <= @window and here <= bytes end)
    ]

    part = if total > 0, do: bytes / total, else: 1.0
    bar = String.pad_trailing(String.duplicate("=", trunc(@width * part)), @width)
    line = "[#{bar}] #{trunc(100 * part)} % of #{Terminal.bytes(total)}"
    {line <> pace(progress, speed(samples), total - bytes), samples}
  end

  defp pace(%{status: :checking, file: file}, _speed, _left), do: ", checking #{file}"
  defp pace(_progress, nil, _left), do: ""
  defp pace(_progress, speed, left), do: ", #{Terminal.bytes(speed)}/s, #{time(left / speed)} left"

  defp speed([{now, bytes} | _earlier] = samples) do
    {time, earlier} = List.last(samples)
    if now - time >= 1_000 and bytes > earlier, do: (bytes - earlier) * 1_000 / (now - time)
  end

  defp time(seconds) when seconds < 90, do: "#{round(seconds)} s"
  defp time(seconds) when seconds < 5_400, do: "#{round(seconds / 60)} min"
  defp time(seconds), do: "#{Float.round(seconds / 3_600, 1)} h"
end
