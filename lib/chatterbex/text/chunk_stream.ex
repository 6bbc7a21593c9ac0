defmodule Chatterbex.Text.ChunkStream do
  @moduledoc false
  # Chunks of a text that is pulled fragment by fragment, only when chunks are needed.

  alias Chatterbex.{Error, Options.Schema}
  alias Chatterbex.Text.Splitter

  @spec new(Enumerable.t() | binary, map) :: Enumerable.t()
  def new(source, options) do
    source
    |> fragments()
    |> Stream.transform(fn -> Splitter.new(options) end, &step/2, &last/1, &Function.identity/1)
    # An error comes after the chunks before it, wherever the fragments were cut.
    |> Stream.map(fn
      %Error{} = error -> raise error
      chunk -> chunk
    end)
  end

  defp fragments(text) when is_binary(text), do: Splitter.slices(text)
  defp fragments(source), do: Stream.flat_map(source, &slices/1)

  defp slices(fragment) when is_binary(fragment), do: Splitter.slices(fragment)

  defp slices(other) do
    raise Error.new(:invalid_text, "the parts of a text must be strings, got #{Schema.show(other)}")
  end

  defp step(fragment, splitter) do
    case Splitter.push(splitter, fragment) do
      {:ok, chunks, splitter} -> {chunks, splitter}
      {:error, chunks, error} -> {chunks ++ [error], splitter}
    end
  end

  defp last(splitter) do
    case Splitter.finish(splitter) do
      {:ok, chunks} -> {chunks, splitter}
      {:error, chunks, error} -> {chunks ++ [error], splitter}
    end
  end
end
