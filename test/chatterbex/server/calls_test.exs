defmodule Chatterbex.Server.CallsTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Server.{Call, Calls, Queue, Request}

  @crash {:exit_status, 139}

  defp call(fields \\ []) do
    struct!(
      %Call{from: {self(), make_ref()}, function: "clone", arguments: %{}, monitor: make_ref(), timer: nil},
      fields
    )
  end

  defp queue, do: 10 |> Queue.new() |> Queue.ready(2, 1)

  # A queue whose model has a piece.
  defp busy do
    request = %Request{
      ref: make_ref(),
      monitor: make_ref(),
      timer: nil,
      deadline: nil,
      opened_at: 0,
      priority: :normal,
      options: %{}
    }

    piece = %{number: 0, text: "Hello.", stream: false, options: %{}}
    {:ok, queue} = Queue.open(queue(), Request.add(request, [piece]))
    {_request, _piece, queue} = Queue.take(queue, 1)
    queue
  end

  # A queue whose piece killed the model's process.
  defp suspicious do
    {[], queue} = Queue.died(busy(), @crash, fn _deaths -> false end)
    Queue.ready(queue, 2, 1)
  end

  test "calls that wait are submitted in order, and pieces follow" do
    calls = %{7 => call(), 5 => call(), 6 => call(submitted: true)}
    assert Calls.due(calls, queue()) == {[5, 7], true}
    assert Calls.due(calls, busy()) == {[5, 7], true}
    assert Calls.due(%{}, queue()) == {[], true}
  end

  test "a call that killed the process runs alone" do
    calls = %{5 => call(), 6 => call(deaths: [@crash]), 7 => call(deaths: [@crash])}
    assert Calls.due(calls, queue()) == {[6], false}
    assert Calls.due(calls, busy()) == {[], false}
    assert Calls.due(put_in(calls[5], call(submitted: true)), queue()) == {[], false}
    assert Calls.due(put_in(calls[6], call(submitted: true, deaths: [@crash])), queue()) == {[], false}
  end

  test "nothing runs next to a piece that killed the process" do
    assert Calls.due(%{5 => call()}, suspicious()) == {[], true}
    assert Calls.due(%{5 => call(), 6 => call(submitted: true)}, suspicious()) == {[], false}
  end

  test "running calls wait again after a crash until they are blamed" do
    calls = %{5 => call(submitted: true), 6 => call()}

    assert {[], %{5 => %{submitted: false, deaths: [@crash]}, 6 => %{deaths: []}} = calls} =
             Calls.died(calls, @crash)

    calls = put_in(calls[5], %{calls[5] | submitted: true})
    assert {[5], %{5 => %{submitted: false, deaths: [@crash, @crash]}}} = Calls.died(calls, @crash)
  end
end
