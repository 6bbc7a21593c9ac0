defmodule Chatterbex.Text.Splitter do
  @moduledoc false
  # Turns fragments of text into chunks, for callers that receive text and cannot pull it.

  alias Chatterbex.Error
  alias Chatterbex.Text.{Chunk, Chunks, Markup, Sentences}

  # The number of bytes processed at a time. It is small, because words keep alive the slice that they were read from.
  @slice 4_096

  @enforce_keys [:sentences, :chunks]
  defstruct [:sentences, :chunks]

  @type t :: %__MODULE__{sentences: Sentences.t(), chunks: Chunks.t()}

  @doc """
  `options` are those of `Chatterbex.Text.SplitOptions`, checked.
  """
  @spec new(map) :: t
  def new(options) do
    %__MODULE__{
      sentences:
        Sentences.new(options.language, Markup.new(options.sounds, options.unknown_sounds), options.max),
      chunks: struct!(Chunks, Map.take(options, [:max, :sentence_pause, :paragraph_pause, :group]))
    }
  end

  @doc """
  Adds a fragment of the text, which may end anywhere, and returns the complete chunks.
  """
  @spec push(t, binary) :: {:ok, [Chunk.t()], t} | {:error, [Chunk.t()], Error.t()}
  def push(%__MODULE__{} = splitter, fragment) when byte_size(fragment) <= @slice do
    case Sentences.push(splitter.sentences, fragment) do
      {:ok, events, sentences} ->
        {chunks, state} = Chunks.add(splitter.chunks, events)
        {:ok, chunks, %{splitter | sentences: sentences, chunks: state}}

      {:error, events, error} ->
        failed(splitter, events, error)
    end
  end

  def push(splitter, fragment) do
    result =
      Enum.reduce_while(slices(fragment), {[], splitter}, fn slice, {chunks, splitter} ->
        case push(splitter, slice) do
          {:ok, more, splitter} -> {:cont, {[chunks | more], splitter}}
          {:error, more, error} -> {:halt, {:error, List.flatten([chunks | more]), error}}
        end
      end)

    with {chunks, splitter} <- result, do: {:ok, List.flatten(chunks), splitter}
  end

  @doc """
  Ends the text, and returns the remaining chunks.
  """
  @spec finish(t) :: {:ok, [Chunk.t()]} | {:error, [Chunk.t()], Error.t()}
  def finish(%__MODULE__{} = splitter) do
    case Sentences.finish(splitter.sentences) do
      {:ok, events} ->
        {chunks, _state} = Chunks.add(splitter.chunks, events)
        {:ok, chunks}

      {:error, events, error} ->
        failed(splitter, events, error)
    end
  end

  defp failed(splitter, events, error) do
    {chunks, _state} = Chunks.add(splitter.chunks, events)
    {:error, chunks, error}
  end

  @doc """
  A binary as a lazy Enumerable of its parts.
  """
  @spec slices(binary) :: Enumerable.t()
  def slices(binary) when byte_size(binary) <= @slice, do: [binary]

  def slices(binary) do
    Stream.unfold(binary, fn
      "" -> nil
      <<slice::binary-size(@slice), rest::binary>> -> {slice, rest}
      rest -> {rest, ""}
    end)
  end
end
