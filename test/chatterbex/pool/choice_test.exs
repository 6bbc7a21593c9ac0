defmodule Chatterbex.Pool.ChoiceTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Pool.Choice

  setup do
    [a, b] = for _n <- 1..2, do: spawn(fn -> Process.sleep(:infinity) end)
    %{a: a, b: b}
  end

  test "without servers, none is chosen" do
    assert Choice.best(%Choice{}, [], 10, nil) == nil
  end

  test "the one with less waiting is better", %{a: a, b: b} do
    choice = Choice.given(%Choice{}, a, 100, nil, 0)
    assert Choice.best(choice, [a, b], 50, nil) == b
    choice = Choice.given(choice, b, 300, nil, 0)
    assert Choice.best(choice, [a, b], 50, nil) == a
    choice = Choice.taken_back(choice, b, 300)
    assert Choice.best(choice, [a, b], 50, nil) == b
  end

  test "the faster one is better, even with more waiting", %{a: a, b: b} do
    choice = %Choice{} |> Choice.given(a, 1000, nil, 0) |> Choice.given(b, 1000, nil, 0)
    # a speaks 1000 characters in a second, b in ten.
    choice = choice |> Choice.spoken(a, 1000, 1_000) |> Choice.spoken(b, 1000, 10_000)
    choice = Choice.given(choice, a, 500, nil, 10_000)
    assert Choice.best(choice, [a, b], 200, nil) == a
    assert Choice.best(Choice.given(choice, a, 5_000, nil, 10_000), [a, b], 200, nil) == b
  end

  test "one that has the voice is better, unless it is much busier", %{a: a, b: b} do
    choice =
      %Choice{} |> Choice.given(a, 10, :ann, 0) |> Choice.spoken(a, 10, 100) |> Choice.given(b, 10, :bob, 0)

    choice = Choice.spoken(choice, b, 10, 100)
    for _n <- 1..20, do: assert(Choice.best(choice, [a, b], 10, :ann) == a)
    for _n <- 1..20, do: assert(Choice.best(choice, [a, b], 10, :bob) == b)
    assert Choice.best(Choice.given(choice, a, 1_000, :ann, 100), [a, b], 10, :ann) == b
  end

  test "requests from other nodes count, until those nodes are gone", %{a: a, b: b} do
    choice = Choice.elsewhere(%Choice{}, self(), %{a => 1_000})
    assert Choice.best(choice, [a, b], 10, nil) == b
    choice = choice |> Choice.given(b, 100, nil, 0) |> Choice.keep([a, b], [])
    assert Choice.best(choice, [a, b], 10, nil) == a
    assert Choice.waiting(choice) == %{b => 100}
    assert Choice.waiting(Choice.keep(choice, [a], [])) == %{}
  end

  test "on a tie, a server on this node wins", %{a: a} do
    # A pid of another node, as that node sends it.
    far = :erlang.binary_to_term(<<131, 88, 119, 7, "far@far", 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1>>)
    assert node(far) == :far@far
    for _n <- 1..20, do: assert(Choice.best(%Choice{}, [far, a], 10, nil) == a)
    choice = Choice.given(%Choice{}, a, 100, nil, 0)
    assert Choice.best(choice, [far, a], 10, nil) == far
  end
end
