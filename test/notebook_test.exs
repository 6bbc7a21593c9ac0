defmodule Chatterbex.NotebookTest do
  use ExUnit.Case, async: true

  @notebook Path.expand("../guides/notebook.livemd", __DIR__)

  # In Livebook, the first cell installs what a project already has.
  setup_all do
    cells =
      for [_all, cell] <- Regex.scan(~r/^```elixir\n(.*?)^```$/ms, File.read!(@notebook)),
          not String.starts_with?(cell, "Mix.install("),
          do: cell

    {:ok, cells: cells}
  end

  # Runs cells in order, each with the bindings of those before it. Returns the final bindings.
  defp run(cells) do
    {binding, _env} =
      Enum.reduce(cells, {[], Code.env_for_eval(file: @notebook)}, fn cell, {binding, env} ->
        {_value, binding, env} = cell |> Code.string_to_quoted!() |> Code.eval_quoted_with_env(binding, env)
        {binding, env}
      end)

    binding
  end

  defp needs_kino?(cell), do: String.contains?(cell, "Kino.")

  test "all cells run in order", %{cells: cells} do
    assert length(cells) > 7
    binding = cells |> Enum.reject(&needs_kino?/1) |> run()
    assert Chatterbex.Audio.duration(binding[:audio]) > 1
    assert Chatterbex.Audio.duration(binding[:whole]) > 2
    assert [{milliseconds, _chunk} | _rest] = binding[:chunks]
    assert is_integer(milliseconds)
    File.rm!(binding[:path])
  end

  @tag skip: if(Code.ensure_loaded?(Kino.Render), do: false, else: "Kino is not installed")
  test "cells that need Kino run too", %{cells: cells} do
    {:ok, _apps} = Application.ensure_all_started(:kino)
    assert Enum.count(cells, &needs_kino?/1) == 2
    assert is_struct(run(cells)[:frame], Kino.Frame)
  end
end
