defmodule Chatterbex.Prove.Document do
  @moduledoc false
  # A report to read: in a terminal, and in an issue.

  @doc false
  @spec text(Chatterbex.Prove.report()) :: String.t()
  def text(report) do
    """
    #{report.model}: #{verdict(report)}

    #{columns([["check", "", ""] | checks(report)])}

    #{columns([speed_head() | speed(report)])}

    RTF is seconds of work per second of audio: below 1 is faster than real time.
    """
  end

  @doc false
  @spec markdown(Chatterbex.Prove.report()) :: String.t()
  def markdown(report) do
    """
    # Proof of `#{report.model}`: #{verdict(report)}

    #{table([["check", "result", "what was found"] | checks(report)])}

    ## Speed

    #{table([speed_head() | speed(report)])}

    RTF is seconds of work per second of audio: below 1 is faster than real time.

    ## Sentences

    #{table([sentence_head() | sentences(report)])}
    #{similarities(report)}
    ## Machine

    #{table([["", ""] | machine(report)])}
    """
  end

  defp verdict(%{passed: false}), do: "FAILED"

  defp verdict(report) do
    case for %{status: :skipped, name: name} <- report.checks, do: name do
      [] -> "passed"
      names -> "passed; not checked: #{Enum.join(names, ", ")}"
    end
  end

  defp checks(report) do
    for check <- report.checks, do: [check.name, status(check.status), one_line(check.message)]
  end

  defp status(:passed), do: "ok"
  defp status(:failed), do: "FAILED"
  defp status(:skipped), do: "not checked"

  defp speed_head, do: ["device", "loading", "RTF", "first audio", "audio", "words misheard"]

  defp speed(report) do
    for one <- report.measured do
      [
        one.device,
        seconds(one.load_seconds),
        number(one.rtf, 3),
        seconds(one.first_audio_seconds),
        seconds(one.audio_seconds),
        if(one.word_error_rate, do: number(one.word_error_rate * 100, 0) <> " %", else: "-")
      ]
    end
  end

  defp sentence_head, do: ["", "device", "length", "LUFS", "tokens", "watermark", "said, and heard"]

  defp sentences(report) do
    for {sentence, number} <- Enum.with_index(report.sentences, 1), spoken <- sentence.spoken do
      [
        "#{number}",
        spoken.device,
        seconds(spoken.seconds),
        loudness(spoken.loudness),
        "#{spoken.tokens || "-"}",
        yes(spoken.watermarked),
        one_line("#{sentence.text} / #{heard(spoken.heard)}")
      ]
    end
  end

  defp similarities(%{measured: [_cpu]}), do: ""

  defp similarities(report) do
    rows =
      for {%{similarity: one}, number} <- Enum.with_index(report.sentences, 1) do
        if one,
          do: [
            "#{number}",
            seconds(one.seconds),
            number(one.loudness, 2),
            number(one.envelope, 4),
            difference(one)
          ],
          else: ["#{number}", "-", "-", "-", "-"]
      end

    """

    ## The device against the CPU

    #{table([["", "longer by", "louder by (LU)", "envelopes correlate", "difference (dB)"] | rows])}
    """
  end

  defp difference(%{equal: true}), do: "equal"
  defp difference(one), do: number(one.difference, 1)

  defp machine(report) do
    [
      ["chatterbex", :chatterbex |> Application.spec(:vsn) |> to_string()],
      ["Elixir, OTP", "#{System.version()}, #{System.otp_release()}"],
      ["system", "#{:erlang.system_info(:system_architecture)}, #{release()}"],
      ["cores", "#{System.schedulers_online()}"]
    ] ++
      for({name, version} <- Enum.sort(report.versions), do: ["#{name}", "#{version}"]) ++
      for(
        %{warning: warning, device: device} when warning != nil <- report.measured,
        do: [device, one_line(warning)]
      )
  end

  defp release do
    case :os.version() do
      {major, minor, patch} -> "kernel #{major}.#{minor}.#{patch}"
      text -> "kernel #{text}"
    end
  end

  defp columns(rows) do
    widths =
      rows
      |> Enum.zip_with(& &1)
      |> Enum.map(&(&1 |> Enum.map(fn cell -> String.length(cell) end) |> Enum.max()))

    Enum.map_join(rows, "\n", fn row ->
      row |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.join("  ") |> String.trim_trailing()
    end)
  end

  defp table([head | rows]) do
    rule = Enum.map(head, fn _cell -> "---" end)
    Enum.map_join([head, rule | rows], "\n", fn row -> "| #{Enum.map_join(row, " | ", &escaped/1)} |" end)
  end

  defp escaped(cell), do: String.replace(cell, "|", "\\|")
  defp one_line(text), do: text |> String.split() |> Enum.join(" ")

  defp heard(nil), do: "-"
  defp heard(""), do: "(nothing)"
  defp heard(words), do: words

  defp yes(nil), do: "-"
  defp yes(true), do: "yes"
  defp yes(false), do: "NO"

  defp loudness(loudness) when is_float(loudness), do: number(loudness, 1)
  defp loudness(:silent), do: "silent"
  defp loudness(nil), do: "-"

  defp seconds(nil), do: "-"
  defp seconds(value), do: number(value, 2) <> " s"

  defp number(nil, _decimals), do: "-"

  defp number(value, decimals) do
    # Rounded first, and with the sum that makes 0.0 of -0.0: nobody wants to read "-0.00".
    :erlang.float_to_binary(Float.round(value * 1.0, decimals) + 0.0, decimals: decimals)
  end
end
