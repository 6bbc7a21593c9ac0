defmodule Chatterbex.MpsTest do
  @moduledoc """
  `device: "mps"` through the whole stack, on the simulated MPS device: all of the model works there, or all of it goes to
  the CPU, and everybody is told. What else may fail there is in test/python/device.
  """
  # Not async: it keeps all cores busy for a long time.
  use ExUnit.Case, async: false

  alias Chatterbex.{Audio, Error, MpsScenarios, TestHelp}

  @moduletag skip: MpsScenarios.unavailable()
  @moduletag timeout: 600_000

  # The components that speak. "analysis" and "ve" make voices, on the CPU.
  @speaking ~w(t3 s3gen)a

  @t3_stays [move: "t3", times: nil, error: "unsupported"]

  @scenarios [
    third: [
      fallback: true,
      # About half of the tokens of a request.
      requests: [[], [], [[operator: "aten::linear", nth: 4, error: "command_buffer"]], []]
    ],
    half: [fallback: true, load: [[move: "s3gen", nth: 40, error: "placeholder"]], requests: [[]]],
    wrong: [
      fallback: true,
      load: [[operator: "convolution", nth: 10, times: nil, error: "wrong"]],
      requests: [[]]
    ],
    crowded: [
      fallback: true,
      requests: [[[operator: "aten::linear", nth: 4, error: "out_of_memory"]]]
    ],
    refused: [fallback: false, load: [@t3_stays], requests: [[@t3_stays]]],
    refused_later: [
      fallback: false,
      requests: [[[operator: "aten::conv_transpose1d", error: "unsupported"]], []]
    ]
  ]

  setup_all do
    folder = Chatterbex.TestHelp.temporary_path("simulated-mps")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)

    {{:ok, expected}, _cut_short} = ExUnit.CaptureLog.with_log(&on_the_cpu/0)

    Map.put(MpsScenarios.outcomes(@scenarios, folder), :expected, expected)
  end

  test "works fully: two requests as on the CPU, watermarked, without warnings", context do
    assert :ok = context.third.ready

    for request <- Enum.take(context.third.requests, 2) do
      assert_same(request, context.expected)
      assert request.marked
      assert %{requested: :mps, actual: :mps, reason: nil, warning: nil, limited: nil} = request.info.device
      assert %{passed: true, components: %{"t3.logits": logits}} = request.info.device.proof
      assert logits.difference <= logits.tolerance
      assert places(request.info.components) == ["mps:0"]
      assert places(request.walked) == ["mps:0"]
      assert request.log == []
      assert request.events == []
    end
  end

  test "a failure in the middle of the third request: it and the next are spoken on the CPU", context do
    [_first, _second, third, fourth] = context.third.requests
    assert_fell_back(third, ["generating on mps failed in t3", "MPSCommandBuffer: Internal Error"])
    assert_same(third, context.expected)
    assert third.marked
    assert third.info.device.reason == fourth.info.device.reason
    assert_same(fourth, context.expected)
    assert %{log: [], events: []} = fourth
  end

  test "half of the model does not move: it speaks on the CPU", context do
    assert :ok = context.half.ready
    [request] = context.half.requests
    assert_fell_back(request, ["moving s3gen to mps failed", "Placeholder storage"])
    assert_same(request, context.expected)
  end

  test "a device that computes wrong results is detected before it speaks", context do
    assert :ok = context.wrong.ready
    [request] = context.wrong.requests
    assert_fell_back(request, ["the proof on mps failed", "s3gen.mel differs from the CPU"])
    assert_same(request, context.expected)
  end

  test "out of memory while speaking: fewer requests at a time, on the same device", context do
    [request] = context.crowded.requests
    assert_same(request, context.expected)
    assert places(request.walked) == ["mps:0"]
    assert request.events == []
    assert [line] = request.log
    assert line =~ "4 requests at a time instead of 8: generating on mps failed in t3"
  end

  test "with fallback: false, an unusable device is an error", context do
    assert {:error, %Error{reason: :device_unavailable, message: message}} = context.refused.ready
    assert message =~ "moving t3 to mps failed"
    assert message =~ "With fallback: true, the model would use the CPU instead"

    [request] = context.refused.requests
    assert {:error, %Error{reason: :device_unavailable}} = request.spoken
    assert %{status: :failed, error: %Error{reason: :device_unavailable}} = request.info
    assert request.events == []
  end

  test "with fallback: false, a failure while speaking is the request's error", context do
    assert :ok = context.refused_later.ready
    [failed, next] = context.refused_later.requests
    assert {:error, %Error{reason: :device_unavailable, message: message}} = failed.spoken
    assert message =~ "generating on mps failed in s3gen"
    assert places(failed.walked) == ["mps:0"]
    assert_same(next, context.expected)
    assert places(next.walked) == ["mps:0"]
    assert Enum.map([failed, next], & &1.events) == [[], []]
  end

  defp on_the_cpu do
    {text, options} = MpsScenarios.request()
    cpu = [model: :nano, checkpoint: TestHelp.checkpoint(:nano), device: "cpu"]
    {:ok, server} = Chatterbex.start_link(cpu)
    spoken = Chatterbex.generate(server, text, options)
    :ok = Chatterbex.stop(server: server)
    spoken
  end

  # Everything is on the CPU. One log line and one event say the same as info.
  defp assert_fell_back(request, reasons) do
    assert %{requested: :mps, actual: :cpu, reason: reason, warning: nil} = request.info.device
    for said <- reasons, do: assert(reason =~ said)
    assert places(request.info.components) == ["cpu"]
    assert places(request.walked) == ["cpu"]
    assert [line] = request.log
    assert line =~ "runs on the CPU instead of mps: " <> reason
    assert [%{model: :nano, from: "mps", to: "cpu", reason: ^reason}] = request.events
  end

  # It adds in another order.
  defp assert_same(request, expected) do
    assert {:ok, %Audio{} = audio} = request.spoken
    assert audio.metadata.tokens == expected.metadata.tokens
    assert byte_size(audio.samples) == byte_size(expected.samples)

    for {one, other} <- Enum.zip(floats(audio), floats(expected)) do
      assert_in_delta one, other, 1.0e-4
    end
  end

  defp floats(audio), do: for(<<sample::float-32-little <- audio.samples>>, do: sample)

  defp places(components), do: components |> Map.take(@speaking) |> Map.values() |> Enum.uniq()
end
