defmodule Chatterbex.PrecisionTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{JSON, Precision}

  doctest Precision

  @moduletag :tmp_dir

  defp keep(home, name, verdict, time) do
    File.mkdir_p!(Precision.folder(home))
    path = Path.join(Precision.folder(home), name)
    File.write!(path, if(is_map(verdict), do: JSON.encode(verdict), else: verdict))
    File.touch!(path, time)
  end

  defp verdict(folder, precision),
    do: %{folder: folder, t3: nil, flow: %{precision: precision, passed: true, mel_snr: 40}}

  test "the newest verdict on these files counts", %{tmp_dir: home} do
    assert Precision.newest(home, :nano, "/files") == nil
    keep(home, "nano-1.json", verdict("/files", "old"), 1_000)
    keep(home, "nano-2.json", verdict("/files", "new"), 2_000)
    keep(home, "nano-3.json", verdict("/others", "none of these files"), 3_000)
    keep(home, "nano-4.json", "{", 4_000)
    keep(home, "nano-5.json", %{folder: "/files", t3: "no", flow: nil}, 5_000)
    keep(home, "turbo-6.json", verdict("/files", "of another model"), 6_000)
    keep(home, "files.json", %{}, 7_000)

    assert %{t3: nil, flow: %{precision: "new"}} = found = Precision.newest(home, :nano, "/files")
    assert Precision.text(found) == "flow in new (mel 40.0 dB)"
  end

  test "a verdict says why a model computes as it does" do
    refused = %{precision: "int8", passed: false, kl_divergence: 0.004, changed_tokens: 0.0352}
    told = %{requested: "auto", t3: "float32", flow: "float32", verdict: %{t3: refused, flow: nil}}

    assert Precision.used(told) ==
             "T3 in float32, because int8 is too far from it (KL divergence 0.00400 nats, 3.52% of tokens changed), " <>
               "flow in float32"

    assert Precision.used(%{told | t3: nil, verdict: nil}) == "flow in float32"
  end
end
