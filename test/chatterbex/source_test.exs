defmodule Chatterbex.SourceTest do
  use ExUnit.Case, async: true

  # From OTP 28 on a compiled regular expression is no plain term: one in an attribute does not compile.
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

  defp regex?(quoted) do
    {_quoted, regex?} =
      Macro.prewalk(quoted, false, fn
        {:sigil_r, _, _} = node, _found -> {node, true}
        node, found -> {node, found}
      end)

    regex?
  end
end
