defmodule Chatterbex.SourceTest do
  use ExUnit.Case, async: true

  # From OTP 28 on, a compiled regular expression is not a plain term: one in an attribute does not compile.
  test "no attribute holds a regular expression" do
    for path <- Path.wildcard(Path.expand("../../lib/**/*.ex", __DIR__)) do
      {:ok, quoted} = path |> File.read!() |> Code.string_to_quoted()

      {_quoted, found} =
        Macro.prewalk(quoted, [], fn
          {:@, _, [{name, _, [value]}]} = node, found ->
            {node, if(regex?(value), do: [name | found], else: found)}

          node, found ->
            {node, found}
        end)

      assert found == [], "#{path}: #{inspect(found)}"
    end
  end

  # Phrases that plain English replaced. A new text must not bring them back.
  @replaced [
    "is no path of a file",
    "takes slowly",
    "said and no failure",
    "gone on with",
    "Bring it to the same",
    "Bytes, to read",
    "no picture has this size",
    "made anew",
    "begins anew",
    "begin anew",
    "thereof",
    "is said in the log",
    "listens no more",
    "is no number",
    "is no file",
    "is no server",
    "is no JSON",
    "is no HTTP",
    "is no name",
    "are told of",
    "whoever asked",
    "those who wait",
    "take along",
    "what is none",
    "at present",
    "who takes",
    "slow taker",
    "its taker",
    "makes no sense",
    "is taken to its end",
    "going on with",
    "goes on with",
    "by other means",
    "Asks nothing",
    "never come to an end",
    "of so many bits",
    "in a VM of its own"
  ]

  test "no text has a phrase that plain English replaced" do
    root = Path.expand("../..", __DIR__)

    paths =
      Enum.flat_map(
        [
          "lib/**/*.ex",
          "priv/python/chatterbex/**/*.py",
          "native/*/src/**/*.rs",
          "guides/**/*.{md,livemd}",
          "docs/**/*.md",
          "*.md",
          "test/**/*.{ex,exs}",
          "bench/*",
          "bin/*",
          ".ci/*",
          "examples/*"
        ],
        fn pattern -> [_one | _more] = root |> Path.join(pattern) |> Path.wildcard(match_dot: true) end
      )
      |> Enum.reject(&(File.dir?(&1) or &1 == __ENV__.file))

    # A line break between the words of a phrase does not hide it.
    found =
      for path <- paths,
          text = path |> File.read!() |> String.split(~r/[\s#\/*]+/) |> Enum.join(" "),
          phrase <- @replaced,
          String.contains?(text, phrase),
          do: {Path.relative_to(path, root), phrase}

    assert found == []
  end

  defp regex?(quoted) do
    {_quoted, regex?} =
      Macro.prewalk(quoted, false, fn
        {:sigil_r, _, _} = node, _found -> {node, true}
        node, found -> {node, found}
      end)

    regex?
  end
end
