defmodule Chatterbex.DependenciesTest do
  # Where a compile-time dependency is part of a cycle, a change in one file compiles all files of the cycle again.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  # The dependencies of each file, as `{from, to, label}`. The label is "compile", "export" or, at runtime, "".
  defp dependencies do
    Mix.Task.reenable("xref")
    output = capture_io(fn -> Mix.Tasks.Xref.run(["graph", "--no-compile", "--format", "plain"]) end)

    {found, _file} =
      output
      |> String.split("\n", trim: true)
      |> Enum.flat_map_reduce(nil, fn line, file ->
        case Regex.run(~r/^(?:[|`]-- )?(\S+)(?: \((\w+)\))?$/, line) do
          [^line, ^line] -> {[], line}
          [_line, to | label] -> {[{file, to, Enum.at(label, 0, "")}], file}
        end
      end)

    found
  end

  test "no cycle has a compile-time dependency" do
    dependencies = dependencies()
    assert Enum.any?(dependencies, &match?({_from, "lib/chatterbex/options/schema.ex", "compile"}, &1))

    graph = :digraph.new()
    for {from, to, _label} <- dependencies, file <- [from, to], do: :digraph.add_vertex(graph, file)
    for {from, to, _label} <- dependencies, do: :digraph.add_edge(graph, from, to)
    components = :digraph_utils.strong_components(graph)
    component = for files <- components, file <- files, into: %{}, do: {file, files}

    assert [] == for({from, to, "compile"} <- dependencies, to in component[from], do: {from, to})
  end

  # The documentation of many modules is made from it at compile time.
  test "the table of options needs no other module" do
    assert [] == for({"lib/chatterbex/options/schema.ex", to, _label} <- dependencies(), do: to)
  end
end
