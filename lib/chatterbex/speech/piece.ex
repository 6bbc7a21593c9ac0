defmodule Chatterbex.Speech.Piece do
  @moduledoc false
  # A chunk of a text on its way to the model. A spoken piece has a number; silence has none.

  alias Chatterbex.{Model, Server.Request, Text.Chunk}

  @enforce_keys [:number, :text, :pause]
  defstruct [:number, :text, :pause]

  @type t :: %__MODULE__{number: non_neg_integer | nil, text: String.t(), pause: non_neg_integer}

  @doc """
  Numbers chunks from `first` on.
  """
  @spec number([Chunk.t()], non_neg_integer) :: [t]
  def number(chunks, first \\ 0) do
    {pieces, _next} =
      Enum.map_reduce(chunks, first, fn
        %Chunk{speakable: true} = chunk, next -> {new(chunk, next), next + 1}
        chunk, next -> {new(chunk, nil), next}
      end)

    pieces
  end

  defp new(chunk, number), do: %__MODULE__{number: number, text: chunk.text, pause: chunk.pause}

  @doc """
  The piece in the form that the server needs.
  """
  @spec command(t, boolean, Model.t()) :: Request.piece()
  def command(piece, stream, model) do
    # Callers only wait for the first piece of a text.
    later? = piece.number > 0 and :first_chunk_steps in model.options

    %{
      number: piece.number,
      text: piece.text,
      stream: stream,
      options: if(later?, do: %{"first_chunk_steps" => 0}, else: %{})
    }
  end

  @doc """
  The samples of silence of the given milliseconds, in one channel.
  """
  @spec silence(non_neg_integer, pos_integer) :: binary
  def silence(0, _rate), do: ""
  def silence(milliseconds, rate), do: :binary.copy(<<0::32>>, div(milliseconds * rate, 1000))

  @doc """
  The argument of a `:progress` function after a piece with `seconds` of audio. `done` is the argument of the previous call.
  """
  @spec progress(map, t, float) :: map
  def progress(done, piece, seconds) do
    characters = done.characters + String.length(piece.text)

    %{
      done
      | # White space between pieces belongs to none of them.
        characters: min(characters, done.total || characters),
        pieces: done.pieces + 1,
        seconds: done.seconds + seconds
    }
  end
end
