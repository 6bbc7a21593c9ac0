defmodule Chatterbex.CudaTest do
  @moduledoc """
  `device: "cuda"` through the whole stack, where there is such a device.
  """
  # Not async: a step of S3Gen holds the model thread, which all tests share, for a long time.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  @moduletag skip:
               no_chatterbox() ||
                 Enum.find_value(Chatterbex.devices(), fn
                   %{device: :cuda, available: false, reason: reason} -> "no CUDA device here: #{reason}"
                   _other -> false
                 end)

  @moduletag timeout: 600_000

  @text "Hello there."
  @options [seed: 7, max_tokens: 12]
  @speaking ~w(t3 s3gen)

  setup_all do
    {:ok, cpu} = Chatterbex.start_link(model: :nano, checkpoint: checkpoint(:nano), device: "cpu")
    {:ok, expected} = Chatterbex.generate(cpu, @text, @options)
    :ok = Chatterbex.stop(server: cpu)
    options = [model: :nano, checkpoint: checkpoint(:nano), device: "cuda", fallback: false]
    %{server: start_server(options), expected: expected}
  end

  test "all of it is there, and speaks as on the CPU, watermarked", %{server: server, expected: expected} do
    assert {:ok, info} = Chatterbex.info(server: server)
    assert %{requested: :cuda, actual: {:cuda, 0}, reason: nil} = info.device
    assert for(part <- @speaking, do: info.components[part]) == List.duplicate("cuda:0", 2)

    assert {:ok, audio} = Chatterbex.generate(server, @text, @options)
    assert likeness(audio, expected) > 0.99
    arguments = %{"samples" => {:bytes, audio.samples}, "sample_rate" => audio.sample_rate}
    assert call_model(server, "watermarked", arguments)["watermarked"]
  end

  test "eight callers at once get what each gets alone", %{server: server, expected: expected} do
    audios =
      1..8
      |> Enum.map(fn _caller -> Task.async(fn -> Chatterbex.generate(server, @text, @options) end) end)
      |> Task.await_many(300_000)

    for {:ok, audio} <- audios, do: assert(likeness(audio, expected) > 0.99)
    assert Enum.all?(audios, &match?({:ok, %Audio{}}, &1))
  end

  test "streams are as long as the whole", %{server: server, expected: expected} do
    chunks = server |> Chatterbex.stream(@text, [chunk_tokens: 8] ++ @options) |> Enum.to_list()
    assert length(chunks) > 1
    assert chunks |> Enum.map(&byte_size(&1.samples)) |> Enum.sum() == byte_size(expected.samples)
  end

  test "a device that is not there is replaced by the CPU, or refused" do
    options = [model: :nano, checkpoint: checkpoint(:nano), device: "cuda:99"]
    server = start_server(options)

    assert {:ok, %{device: %{requested: {:cuda, 99}, actual: :cpu, reason: reason}}} =
             Chatterbex.info(server: server)

    assert reason =~ "there is no cuda:99, only cuda:0"

    {:ok, refused} = Chatterbex.start_link([fallback: false] ++ options)
    assert {:error, %Error{reason: :device_unavailable}} = Chatterbex.await_ready(server: refused)
    :ok = Chatterbex.stop(server: refused)
  end

  # How similar two sounds of the same length are: 1 for the same, about 0 for unrelated ones.
  defp likeness(one, other) do
    assert byte_size(one.samples) == byte_size(other.samples)

    [one, other] =
      for audio <- [one, other], do: for(<<sample::float-32-little <- audio.samples>>, do: sample)

    dot = fn a, b -> a |> Enum.zip(b) |> Enum.reduce(0.0, fn {x, y}, sum -> sum + x * y end) end
    dot.(one, other) / :math.sqrt(dot.(one, one) * dot.(other, other))
  end
end
