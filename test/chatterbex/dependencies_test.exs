defmodule Chatterbex.DependenciesTest do
  # If a cycle has a compile-time dependency, a change in one file recompiles all files of the cycle.
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

  # Files in one component depend on each other, directly or through others.
  defp components(dependencies) do
    graph = :digraph.new()
    for {from, to, _label} <- dependencies, file <- [from, to], do: :digraph.add_vertex(graph, file)
    for {from, to, _label} <- dependencies, do: :digraph.add_edge(graph, from, to)
    :digraph_utils.strong_components(graph)
  end

  test "no file depends on a file that depends on it" do
    assert [] == for([_, _ | _] = files <- components(dependencies()), do: Enum.sort(files))
  end

  test "no cycle has a compile-time dependency" do
    dependencies = dependencies()
    assert Enum.any?(dependencies, &match?({_from, "lib/chatterbex/options/schema.ex", "compile"}, &1))
    component = for files <- components(dependencies), file <- files, into: %{}, do: {file, files}

    assert [] == for({from, to, "compile"} <- dependencies, to in component[from], do: {from, to})
  end

  test "no module of a native crate depends on one that depends on it" do
    crates = Path.wildcard("native/*/src")
    assert "native/t3/src" in crates

    for crate <- crates do
      files = Path.wildcard(crate <> "/**/*.rs")
      modules = Map.new(files, &{module(&1, crate), File.read!(&1)})
      dependencies = for {from, text} <- modules, to <- uses(text, modules), to != from, do: {from, to, ""}
      assert crate != "native/t3/src" or {"engine", "model", ""} in dependencies
      assert [] == for([_, _ | _] = circle <- components(dependencies), do: {crate, Enum.sort(circle)})
    end
  end

  defp module(file, crate) do
    file
    |> Path.relative_to(crate)
    |> Path.rootname()
    |> String.replace_suffix("/mod", "")
    |> String.replace("/", "::")
  end

  # The modules that a file names after `crate::`. Tests within the file may use anything.
  defp uses(text, modules) do
    [text | _tests] = text |> String.replace(~r"//.*", "") |> String.split(~r/^\s*#\[cfg\(test\)\]\s*mod /m)

    for [_all, path] <- Regex.scan(~r/\bcrate::((?:\w+::)*(?:\w+|\{[^}]*\}))/, text),
        path <- unfold(path),
        parts = String.split(path, "::"),
        to = Enum.find_value(length(parts)..1//-1, &known(Enum.take(parts, &1), modules)),
        uniq: true,
        do: to
  end

  defp known(parts, modules) do
    name = Enum.join(parts, "::")
    if is_map_key(modules, name), do: name
  end

  # a::{B, c::D} is a::B and a::c::D.
  defp unfold(path) do
    case String.split(path, ["{", "}"]) do
      [path] -> [path]
      [start, names, ""] -> for name <- String.split(names, ","), do: start <> String.trim(name)
    end
  end

  # The documentation of many modules is made from it at compile time.
  test "the table of options needs no other module" do
    assert [] == for({"lib/chatterbex/options/schema.ex", to, _label} <- dependencies(), do: to)
  end

  # ADR 22: these parts could be packages of their own.
  test "texts and measurements of audio need little else" do
    dependencies = dependencies()
    shared = ~w(error model options options/schema)
    assert needs(dependencies, ~r"^lib/chatterbex/text(/.*)?\.ex$") -- shared == []

    measure = needs(dependencies, ~r"^lib/chatterbex/audio/measure\.ex$")
    assert measure -- ["audio/samples", "native/audio" | shared] == []
  end

  # The modules that these files need outside themselves, as paths.
  defp needs(dependencies, files) do
    for({from, to, _label} <- dependencies, from =~ files, not (to =~ files), do: to)
    |> Enum.uniq()
    |> Enum.map(&(&1 |> Path.relative_to("lib/chatterbex") |> Path.rootname()))
  end
end
