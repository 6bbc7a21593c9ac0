defmodule Chatterbex.Text.Rank do
  @moduledoc false
  # How well a text can be cut between two words. Higher is better.

  alias Chatterbex.Text.Word

  @type t :: -1..5

  # Only if a piece would be too long otherwise: inside a word, or before a full stop.
  defmacro forced, do: -1

  # At non-breaking white space, after a tag for the text that follows it, and between characters that usually belong to
  # one word.
  defmacro inside, do: 0
  # Between characters of a script without spaces.
  defmacro plain, do: 1
  # After "Dr.", and between two scripts.
  defmacro weak, do: 2
  defmacro word, do: 3
  defmacro comma, do: 4
  # After a semicolon, a colon, a dash, and a quotation inside its sentence.
  defmacro clause, do: 5

  @typedoc "White space before a word. `:marked` has a mark on it, and makes one character with it."
  @type glue :: :none | :space | {:binding | :marked, String.t()}

  @doc """
  The rank of the place before a word, by the class of the word before it (`:start` if there is none), what that one
  says of the place after it, the white space between them, and the word's own class.
  """
  @spec before(Word.class() | :start, t, glue, Word.class()) :: t
  def before(:start, _after, _glue, _class), do: forced()
  def before(_previous, forced(), :none, _class), do: forced()
  def before(_previous, _after, {:marked, _white}, _class), do: forced()
  def before(_previous, _after, {:binding, _white}, _class), do: inside()
  def before(_previous, _after, _glue, class) when class in [:close, :small], do: forced()
  def before(:open, _after, _glue, _class), do: forced()
  def before(:style, _after, _glue, _class), do: inside()
  def before(_previous, rank, _glue, _class) when rank in [comma(), clause()], do: rank
  def before(_previous, weak(), :space, _class), do: weak()
  def before(_previous, _after, :space, _class), do: word()
  def before(:han, _after, :none, :han), do: plain()
  def before(:hiragana, _after, :none, :hiragana), do: plain()
  def before(:katakana, _after, :none, :katakana), do: inside()
  def before(:han, _after, :none, :hiragana), do: inside()
  def before(:small, _after, :none, class) when class in [:hiragana, :katakana], do: inside()
  def before(:middle, _after, :none, _class), do: inside()
  def before(_previous, _after, :none, :middle), do: inside()
  def before(_previous, _after, :none, _class), do: weak()
end
