defmodule Chatterbex.Speech.MetadataTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Speech.Metadata}

  defp audio(metadata), do: %Audio{samples: "", sample_rate: 24_000, metadata: metadata}

  test "counts are added up, and the real-time factor includes the pauses" do
    audios = [
      audio(%{seed: 7, tokens: 10, generation_ms: 100.0}),
      audio(%{seed: 7, tokens: 5, generation_ms: 50.0})
    ]

    assert %{seed: 7, tokens: 15, generation_ms: 150.0, pieces: 2, rtf: rtf} =
             Metadata.merge(audios, 24_000 * 4 * 3)

    assert_in_delta rtf, 0.05, 1.0e-9
  end

  test "a piece that was cut short is named in a warning" do
    audios = for reason <- ["stop", "limit", "runaway"], do: audio(%{finish_reason: reason})
    assert %{finish_reason: "limit", warnings: [limit, runaway]} = Metadata.merge(audios, 0)
    assert limit == "piece 1 of the text was cut short at :max_tokens"
    assert runaway == "piece 2 of the text did not end by itself, and was cut"
    refute Map.has_key?(Metadata.merge([audio(%{finish_reason: "stop"})], 0), :warnings)
  end
end
