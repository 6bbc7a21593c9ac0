defmodule Chatterbex.Text.Chunk do
  @moduledoc """
  A piece of text that a model speaks at once, and the silence after it.

    * `text` - the text to speak, without white space at its ends. Empty if there is only silence: a
      `[pause 1s]` with no text before it.
    * `pause` - milliseconds of silence after it
    * `kind` - where the text was cut after it, best place first: `:paragraph` (also the end of the whole text),
      `:sentence` (also a heading or an item of a list), `:pause` (a `[pause 1s]` inside a sentence), `:clause`
      (punctuation inside a sentence), `:word`, or `:grapheme` (between characters of a script without spaces,
      or inside a word that is longer than the limit)
    * `speakable` - whether there is anything to speak: a letter, a digit or a sound. The chunk `***` has nothing to speak.
  """

  @enforce_keys [:text]
  defstruct [:text, pause: 0, kind: :paragraph, speakable: true]

  @type kind :: :paragraph | :sentence | :pause | :clause | :word | :grapheme
  @type t :: %__MODULE__{text: String.t(), pause: non_neg_integer, kind: kind, speakable: boolean}
end
