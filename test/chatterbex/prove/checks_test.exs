defmodule Chatterbex.Prove.ChecksTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Prove.Checks

  @sentences for n <- 1..10,
                 do: "one two three four five six seven eight nine #{Enum.at(~w(a b c d e f g h i j), n - 1)}"

  @same %{equal: true, seconds: 0.0, loudness: 0.0, envelope: 1.0, difference: nil}
  @other %{equal: false, seconds: 0.1, loudness: 0.0, envelope: 1.0, difference: nil}

  @spoken %{tokens: 40, problem: nil, watermarked: true, word_errors: 0}

  defp run(device, changes \\ %{}) do
    spoken = for n <- 1..10, do: Map.merge(@spoken, Map.get(changes, n, %{}))
    %{device: device, spoken: spoken}
  end

  defp found(changes \\ %{}) do
    Map.merge(
      %{
        sentences: @sentences,
        cpu: run("cpu"),
        device: run("mps"),
        left: nil,
        similarities: List.duplicate(@same, 10),
        watermark: true,
        unheard: nil
      },
      changes
    )
  end

  defp check(name, changes) do
    check = changes |> found() |> Checks.all() |> Enum.find(&(&1.name == name))
    {check.status, check.message}
  end

  defp errors(per_sentence), do: Map.new(1..10, &{&1, %{word_errors: per_sentence}})

  test "everything passes" do
    assert Enum.map(Checks.all(found()), &{&1.name, &1.status}) ==
             for(name <- ~w(device sound watermark agreement words), do: {name, :passed})
  end

  test "the device" do
    assert check("device", %{}) == {:passed, "mps spoke every sentence"}

    for left <- [{:failed, "no memory"}, {:skipped, "only the CPU"}],
        do: assert(check("device", %{device: nil, left: left}) == left)

    assert {:skipped, _only_cpu} = check("agreement", %{device: nil, left: {:skipped, ""}})
  end

  test "an available device that was not used is a failure; a missing device is not" do
    never = fn -> flunk("the devices need not be looked for") end
    devices = fn available -> fn -> [%{device: :cpu, name: "CPU", available: true} | available] end end
    mac = %{device: :mps, name: "Apple M3", available: true}
    cards = for n <- 0..1, do: %{device: {:cuda, n}, name: "H100", available: n == 1}

    assert {:skipped, _asked} = Checks.left(:cpu, nil, [:cpu, :mps], never)
    assert Checks.left(:mps, "no Mac", [:cpu, :mps], never) == {:failed, "no Mac"}
    assert Checks.left({:cuda, 1}, nil, [:cpu, :mps], never) == {:failed, "cuda:1 was not used"}
    assert {:skipped, _only} = Checks.left(:auto, nil, [:cpu], never)
    assert Checks.left(:auto, "no driver", [:cpu, :mps], devices.([])) == {:skipped, "no driver"}

    assert Checks.left(:auto, "too little memory", [:cpu, :mps], devices.([mac])) ==
             {:failed, "Apple M3 was not used: too little memory"}

    assert {:failed, "H100 was not used" <> _why} = Checks.left(:auto, nil, [:cpu, :cuda], devices.(cards))
    assert {:skipped, _reason} = Checks.left(:auto, nil, [:cpu, :mps], devices.(cards))
    assert {:skipped, _reason} = Checks.left(:auto, nil, [:cpu, :cuda], devices.(Enum.take(cards, 1)))
  end

  test "a sentence that is silent or not finite" do
    assert check("sound", %{
             device: run("mps", %{3 => %{problem: "it is silent"}}),
             cpu: run("cpu", %{1 => %{problem: "NaN"}})
           }) ==
             {:failed, "cpu 1: NaN; mps 3: it is silent"}
  end

  test "the watermark" do
    assert check("watermark", %{device: run("mps", %{3 => %{watermarked: false}})}) ==
             {:failed, "not found in sentences: mps 3"}

    assert {:skipped, "the model has none"} = check("watermark", %{watermark: false})
  end

  test "two of ten sentences may differ, three may not" do
    differing = fn count ->
      %{similarities: List.duplicate(@other, count) ++ List.duplicate(@same, 10 - count)}
    end

    assert {:passed, "8 of 10 sentences are the same speech on both, 10 have as many tokens"} =
             check("agreement", differing.(2))

    assert {:failed, "7 of 10 sentences are the same" <> _rest} = check("agreement", differing.(3))
    # If one of them has no sound, there is nothing to compare.
    assert {:failed, _message} =
             check("agreement", %{similarities: [nil, nil, nil | List.duplicate(@same, 7)]})

    assert {:passed, message} = check("agreement", %{device: run("mps", %{4 => %{tokens: 41}})})
    assert message =~ "9 have as many tokens"
  end

  test "at most three words in ten may be misheard, and one more than on the CPU" do
    assert {:passed, "cpu: 30 % of the words misheard, mps: 30 % of the words misheard"} =
             check("words", %{cpu: run("cpu", errors(3)), device: run("mps", errors(3))})

    assert {:failed, _too_many} = check("words", %{cpu: run("cpu", errors(4)), device: run("mps", errors(4))})
    assert {:passed, _message} = check("words", %{device: run("mps", errors(1))})

    assert {:failed, "cpu: 0 % of the words misheard, mps: 20 %" <> _rest} =
             check("words", %{device: run("mps", errors(2))})

    assert {:passed, _better} = check("words", %{cpu: run("cpu", errors(3)), device: run("mps")})
    assert {:skipped, "no ears"} = check("words", %{unheard: "no ears"})
  end

  test "the rate counts all words of all sentences" do
    assert Checks.word_error_rate(run("cpu", %{1 => %{word_errors: 5}}), @sentences) == 0.05
    assert Checks.word_error_rate(run("cpu", %{1 => %{word_errors: nil}}), @sentences) == nil
  end
end
