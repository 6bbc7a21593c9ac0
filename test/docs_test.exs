defmodule Chatterbex.DocsTest do
  use ExUnit.Case, async: true

  @root Path.expand("..", __DIR__)

  test "the README asks for this version" do
    [major, minor, _patch] = Mix.Project.config()[:version] |> String.split(".")
    assert File.read!(Path.join(@root, "README.md")) =~ ~s({:chatterbex, "~> #{major}.#{minor}"})
  end

  test "the JavaScript package has this version, and its files exist" do
    {:ok, package} = @root |> Path.join("package.json") |> File.read!() |> Chatterbex.JSON.decode()
    assert package["version"] == Mix.Project.config()[:version]
    shipped = Mix.Project.config()[:package][:files]
    assert "package.json" in shipped

    for {_what, file} <- package["exports"]["."] do
      assert File.exists?(Path.join(@root, file))
      assert Enum.any?(shipped, &String.starts_with?(Path.relative_to(Path.expand(file, "/"), "/"), &1))
    end
  end

  test "every relative link in the documents leads somewhere" do
    documents =
      Enum.flat_map(
        ~w(*.md bench/*.md deploy/*.md guides/*.{md,livemd} examples/*.md docs/**/*.md),
        &Path.wildcard(Path.join(@root, &1))
      )

    assert length(documents) > 5

    for document <- documents,
        [_all, link] <- Regex.scan(~r/\]\((?!https?:|#|\/)([^)#\s]+)/, File.read!(document)) do
      assert File.exists?(Path.expand(link, Path.dirname(document))), "#{document} links to #{link}"
    end
  end

  test "decision records are numbered without a gap and have their four parts" do
    records = Path.wildcard(Path.join(@root, "docs/adr/[0-9]*.md"))

    for {record, number} <- Enum.with_index(records, 1) do
      assert Path.basename(record) =~ ~r/^#{String.pad_leading("#{number}", 4, "0")}-/
      for part <- ~w(Status Context Decision Consequences), do: assert(File.read!(record) =~ "\n## #{part}\n")
    end
  end

  test "every public function has a spec and an example" do
    for module <- shipped(),
        {:docs_v1, _, _, _, %{"en" => _moduledoc}, _, docs} <- [Code.fetch_docs(module)] do
      {:ok, specs} = Code.Typespec.fetch_specs(module)
      specified = for {name_arity, _spec} <- specs, do: name_arity

      for {{:function, name, arity}, _, _, %{"en" => doc}, _meta} <- docs do
        assert {name, arity} in specified, "#{inspect(module)}.#{name}/#{arity} has no spec"
        assert doc =~ ~r/(## Examples|iex>|^    \S)/m, "#{inspect(module)}.#{name}/#{arity} has no example"
      end

      for {{:function, name, arity}, _, _, :none, _meta} <- docs,
          name not in [:__struct__, :exception, :message] do
        unless Module.split(module) |> hd() == "Mix" or function_is_callback?(module, name, arity) do
          flunk("#{inspect(module)}.#{name}/#{arity} has no documentation")
        end
      end
    end
  end

  test "a server is an option of every function, and comes first for generate, stream and a pool's own only" do
    first =
      for module <- [Chatterbex, Chatterbex.Audio, Chatterbex.ModelFiles, Chatterbex.Pool, Chatterbex.Voice],
          {:ok, specs} = Code.Typespec.fetch_specs(module),
          {{name, arity}, clauses} <- specs,
          spec <- clauses,
          {:fun, _, [{:type, _, :product, arguments}, _result]} <- [unbounded(spec)],
          argument <- arguments,
          server?(argument),
          uniq: true,
          do: {module, name, arity}

    assert Enum.sort(first) == [
             {Chatterbex, :generate, 2},
             {Chatterbex, :generate, 3},
             {Chatterbex, :generate!, 2},
             {Chatterbex, :generate!, 3},
             {Chatterbex, :stream, 2},
             {Chatterbex, :stream, 3},
             {Chatterbex.Pool, :drain, 2}
           ]
  end

  test "a function that ends in ? returns a boolean, and one that ends in ! no error" do
    named = fn ending ->
      for module <- shipped(),
          {:docs_v1, _, _, _, %{"en" => _moduledoc}, _, docs} <- [Code.fetch_docs(module)],
          {{:function, name, arity}, _, _, %{"en" => _doc}, _meta} <- docs,
          String.ends_with?(Atom.to_string(name), ending),
          {:ok, specs} = Code.Typespec.fetch_specs(module),
          spec <- Map.fetch!(Map.new(specs), {name, arity}),
          do: {{module, name}, elem(Code.Typespec.spec_to_quoted(name, spec), 2) |> List.last()}
    end

    assert [_ | _] = predicates = named.("?")

    for {function, result} <- predicates,
        do: assert(Macro.to_string(result) == "boolean()", inspect(function))

    assert [_ | _] = bangs = named.("!")
    for {function, result} <- bangs, do: refute(Macro.to_string(result) =~ "Error", inspect(function))
  end

  test "internal functions are not in the documentation" do
    own = [
      {Chatterbex.Options, :validate},
      {Chatterbex.Options, :supported},
      {Chatterbex.Error, :new},
      {Chatterbex.Python, :find},
      {Chatterbex.Audio.Writer, :__struct__}
    ]

    for {module, name} <- own, {:docs_v1, _, _, _, _, _, docs} <- [Code.fetch_docs(module)] do
      for {{_kind, ^name, _arity}, _, _, doc, _meta} <- docs,
          do: assert(doc in [:hidden, :none], "#{inspect(module)}.#{name}")
    end

    assert inspect(Chatterbex.Audio.Writer.new("a.wav")) == ~s(#Chatterbex.Audio.Writer<"a.wav">)
  end

  defp shipped do
    {:ok, modules} = :application.get_key(:chatterbex, :modules)
    Enum.filter(modules, &(&1.module_info(:compile)[:source] |> to_string() |> String.contains?("/lib/")))
  end

  defp function_is_callback?(module, name, arity) do
    behaviours = module.module_info(:attributes) |> Keyword.get_values(:behaviour) |> List.flatten()
    Enum.any?(behaviours, &({name, arity} in &1.behaviour_info(:callbacks)))
  end

  # Erlang's form of `@spec f(t, ...) :: t`, without its `when`.
  defp unbounded({:type, _, :bounded_fun, [{:type, _, :fun, fun}, _bounds]}), do: {:fun, [], fun}
  defp unbounded({:type, _, :fun, fun}), do: {:fun, [], fun}

  defp server?({:user_type, _, :server, []}), do: true

  defp server?({:remote_type, _, [{:atom, _, module}, {:atom, _, :server}, []]}),
    do: module in [Chatterbex, GenServer]

  defp server?(_other), do: false
end
