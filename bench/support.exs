defmodule Bench do
  @moduledoc false

  # The arguments of the command line in order, each like its default: a string or an integer.
  def arguments(defaults) do
    for {default, n} <- Enum.with_index(defaults) do
      case Enum.at(System.argv(), n) do
        nil -> default
        text when is_integer(default) -> String.to_integer(text)
        text -> text
      end
    end
  end

  def title(text), do: IO.puts("\n#{text}\n#{String.duplicate("-", String.length(text))}")

  def row(name, value), do: IO.puts("  #{String.pad_trailing(name, 58)} #{value}")

  # The median in milliseconds of `n` runs of each function, in turns.
  def pairs(functions, n) do
    times = for _round <- 1..n, {name, function} <- functions, do: {name, elem(:timer.tc(function), 0) / 1000}
    for {name, _function} <- functions, into: %{}, do: {name, median(for {^name, ms} <- times, do: ms)}
  end

  def median(values) do
    sorted = Enum.sort(values)
    Enum.at(sorted, div(length(sorted), 2))
  end

  def ms(value), do: "#{:erlang.float_to_binary(value * 1.0, decimals: 3)} ms"

  def start(model, options \\ []) do
    {:ok, server} = Chatterbex.start_link([model: model] ++ options)
    :ok = Chatterbex.await_ready(server: server)
    server
  end
end
