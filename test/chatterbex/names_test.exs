defmodule Chatterbex.NamesTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp

  alias Chatterbex.Names

  test "all maps have atoms for keys, however deep they are" do
    told = %{"a" => %{"b.c" => 1}, "list" => [%{"d" => "e"}], f: ~D[2026-01-01]}
    assert Names.atoms(told) == %{a: %{"b.c": 1}, list: [%{d: "e"}], f: ~D[2026-01-01]}
    assert Names.atoms("text") == "text"
    long = String.duplicate("x", 300)
    assert Names.atoms(%{long => 1}) == %{long => 1}
    assert Names.atoms(%{<<0xFF>> => 1}) == %{<<0xFF>> => 1}
  end

  test "a model that makes names up does not fill the table of atoms" do
    code = """
    Enum.reduce_while(1..100_000, nil, fn n, _ ->
      case Chatterbex.Names.atoms(%{"made up \#{n}" => n}) |> Map.keys() do
        [name] when is_atom(name) -> {:cont, n}
        [name] when is_binary(name) -> {:halt, IO.puts("after \#{n}: \#{name}")}
      end
    end)
    """

    {output, 0} = elixir(code, env: [{"ERL_AFLAGS", "+t 65536"}])
    assert output =~ ~r/^after \d+: made up \d+$/m
  end

  # Names of packages are not field names.
  defp strings(%_struct{}), do: []

  defp strings(%{} = map),
    do: Enum.filter(Map.keys(map), &is_binary/1) ++ Enum.flat_map(Map.values(map), &strings/1)

  defp strings(_value), do: []

  test "info and metadata have atoms for keys" do
    server = start_fake()
    assert {:ok, audio} = Chatterbex.generate(server, "hello")
    assert {:ok, info} = Chatterbex.info(server: server)
    assert {:error, error} = Chatterbex.generate(server, "fail")
    assert %{exception: "ValueError", traceback: "Traceback" <> _} = error.details
    assert strings(audio.metadata) ++ strings(Map.delete(info, :versions)) ++ strings(error.details) == []
    assert %{steps: 1} = audio.metadata
  end
end
