defmodule Chatterbex.PullTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Pull

  defp watched(elements) do
    test = self()

    Stream.resource(
      fn -> elements end,
      fn
        [] ->
          {:halt, []}

        [element | rest] ->
          send(test, {:made, element})
          {[if(is_function(element), do: element.(), else: element)], rest}
      end,
      fn _rest -> send(test, :closed) end
    )
  end

  test "makes elements on demand, and closes the source at the end" do
    pull = Pull.open(watched([1, 2]))
    refute_received {:made, 1}
    assert {:ok, 1, pull} = Pull.next(pull)
    assert_received {:made, 1}
    refute_received {:made, 2}
    assert {:ok, 2, pull} = Pull.next(pull)
    refute_received :closed
    assert :done = Pull.next(pull)
    assert_received :closed
  end

  test "closes an unfinished source on demand, even before its first element" do
    assert {:ok, 1, pull} = [1, 2] |> watched() |> Pull.open() |> Pull.next()
    assert :ok = Pull.close(pull)
    assert_received :closed
    refute_received {:made, 2}
    assert :ok = [3] |> watched() |> Pull.open() |> Pull.close()
    refute_received {:made, 3}
  end

  test "a source that raises has closed itself" do
    assert {:ok, 1, pull} = [1, fn -> raise "no" end] |> watched() |> Pull.open() |> Pull.next()
    assert_raise RuntimeError, "no", fn -> Pull.next(pull) end
    assert_received :closed
  end
end
