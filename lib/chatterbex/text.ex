defmodule Chatterbex.Text do
  @moduledoc """
  Splits text into sentences, and into chunks that a model speaks in one go.

  Models speak a few sentences well but garble a page, so a long text is spoken chunk by chunk. For a text that is
  still being written, for example by a language model, use `stream/2`.

      iex> {:ok, sentences} = Chatterbex.Text.sentences("Dr. Ray paid $3.50. She left.")
      iex> sentences
      ["Dr. Ray paid $3.50.", "She left."]

  It supports the languages that the models speak: ar da de el en es fi fr he hi it ja ko ms nl no
  pl pt ru sv sw tr zh.

  ## What ends a sentence

    * `.` `!` `?` and `...` with white space after them, unless the word is an abbreviation of the language
      (`Dr.`, `z.B.`), an initial (`J. K. Rowling`), an ordinal (`3. Mai`) or the number of an item, and unless
      the text continues in lower case. Text whose sentences begin in lower case may continue that way.
    * `。` `！` `？` `؟` `।` and their like, also without white space, and the semicolon in Greek.
    * A blank line, which ends a paragraph. So do a line of three or more `-`, `=`, `_`, `*` or `~`, and in Chinese
      and Japanese a line that begins with a wide space.
    * The end of a line that is a heading or an item of a list: `# Title`, `- item`, `2. item`, `(a) item`, `一、`, a
      row of a table, a line in capitals of at most 60 characters, or one in title case of at most 40
      characters (20 in scripts without spaces) that begins a paragraph.

  Closing quotation marks, brackets and emoji belong to the sentence before them. Every other line break counts as a
  wrapped line: it becomes a space, or is removed between Chinese and Japanese characters. Runs of white space become one
  space. Nothing visible is ever left out.

  ## Tags

  `[pause 800ms]` and `[pause 1.5s]` insert silence, at most 60 s. `chunks/2` and `stream/2` remove them from the text and
  put their length into `Chatterbex.Text.Chunk`.

  `:turbo` and `:nano` also know these tags, called sounds, which stay in the text:

    * noises: #{Enum.map_join(Chatterbex.Text.Markup.sounds() -- Chatterbex.Text.Markup.styles(), ", ", &"`[#{&1}]`")}
    * styles, for the words that follow: #{Enum.map_join(Chatterbex.Text.Markup.styles(), ", ", &"`[#{&1}]`")}

  Capitals and extra spaces in a tag do not matter. A tag is never cut, and a style stays with the next word. All other words
  in brackets are text, and so are tags for `sentences/2`.
  """

  alias Chatterbex.{Error, Options.Schema}
  alias Chatterbex.Text.{Abbreviations, Chunk, Markup, Sentences, SplitOptions, Splitter}

  # Words of any length stay whole here; this is only how much of a word is processed at a time.
  @longest_word_part 280

  @doc """
  Splits a text into sentences, each on one line and without white space at its ends.

  ## Options

  #{Chatterbex.Options.Schema.docs(:sentences)}

  ## Errors

  `:invalid_text` if `text` is not a string or not valid UTF-8, `:unknown_language`, `:invalid_option`.

  ## Examples

      iex> Chatterbex.Text.sentences("It works, e.g. here. Does it? \\"Yes!\\" she said.")
      {:ok, ["It works, e.g. here.", "Does it?", "\\"Yes!\\" she said."]}

      iex> Chatterbex.Text.sentences("Er kam am 3. Mai z.B. mit Dr. Kohl. Dann ging er.", language: "de")
      {:ok, ["Er kam am 3. Mai z.B. mit Dr. Kohl.", "Dann ging er."]}

      iex> Chatterbex.Text.sentences("「走れ！」と言った。彼は走った。", language: "ja")
      {:ok, ["「走れ！」と言った。", "彼は走った。"]}

      iex> Chatterbex.Text.sentences("# Fruit\\n- apples\\n- pears\\n\\nThey are\\nripe.")
      {:ok, ["# Fruit", "- apples", "- pears", "They are ripe."]}
  """
  @spec sentences(String.t(), keyword) :: {:ok, [String.t()]} | {:error, Error.t()}
  def sentences(text, options \\ []) do
    with {:ok, options} <- SplitOptions.validate(:sentences, options), :ok <- string(text) do
      state = Sentences.new(options.language, Markup.new([], :keep), @longest_word_part)

      text
      |> Splitter.slices()
      |> Enum.reduce_while({:ok, [], [], state}, &collect/2)
      |> finish()
    end
  end

  defp collect(slice, {:ok, sentences, sentence, state}) do
    case Sentences.push(state, slice) do
      {:ok, events, state} ->
        {sentences, sentence} = Enum.reduce(events, {sentences, sentence}, &event/2)
        {:cont, {:ok, sentences, sentence, state}}

      {:error, _events, error} ->
        {:halt, {:error, error}}
    end
  end

  defp finish({:error, error}), do: {:error, error}

  defp finish({:ok, sentences, sentence, state}) do
    case Sentences.finish(state) do
      {:ok, events} ->
        {sentences, []} = Enum.reduce(events, {sentences, sentence}, &event/2)
        {:ok, Enum.reverse(sentences)}

      {:error, _events, error} ->
        {:error, error}
    end
  end

  defp event({:atom, text, _glue, _size, _rank}, {sentences, []}), do: {sentences, [text]}

  defp event({:atom, text, glue, _size, _rank}, {sentences, sentence}),
    do: {sentences, [sentence, glue | text]}

  defp event({:end, _kind}, {sentences, []}), do: {sentences, []}

  defp event({:end, _kind}, {sentences, sentence}),
    do: {[sentence |> IO.iodata_to_binary() |> :binary.copy() | sentences], []}

  @doc """
  The same as `sentences/2`, but returns the list or raises `Chatterbex.Error`.

  ## Examples

      iex> Chatterbex.Text.sentences!("One. Two.")
      ["One.", "Two."]
  """
  @spec sentences!(String.t(), keyword) :: [String.t()]
  def sentences!(text, options \\ []), do: Error.unwrap!(sentences(text, options))

  @doc """
  Splits a text into chunks that a model speaks in one go.

  Sentences of a paragraph are grouped up to `:max` characters. A longer sentence is cut at the best place that leaves
  pieces of a reasonable length: at punctuation, or else between words, or else (in scripts without spaces, or in a word
  longer than `:max`) between characters. It never cuts a tag, or a character made of several code points.

  ## Options

  #{Chatterbex.Options.Schema.docs(:chunks)}

  A pause tag replaces the silence that would be there. A tag that begins a paragraph, or follows another one, is a
  chunk without text.

  ## Errors

  `:invalid_text` if `text` is not a string or not valid UTF-8, or a pause is malformed or too long;
  `:not_supported` if the model does not have a sound; `:unknown_language`; `:invalid_option`.

  ## Examples

      iex> {:ok, chunks} = Chatterbex.Text.chunks("One. Two.\\n\\nThree, [pause 1.5s] four.")
      iex> for chunk <- chunks, do: {chunk.text, chunk.pause, chunk.kind}
      [{"One. Two.", 700, :paragraph}, {"Three,", 1500, :pause}, {"four.", 0, :paragraph}]

      iex> {:ok, chunks} = Chatterbex.Text.chunks("This, as you can see, is cut.", max: 25)
      iex> for chunk <- chunks, do: {chunk.text, chunk.pause, chunk.kind}
      [{"This, as you can see,", 0, :clause}, {"is cut.", 0, :paragraph}]

      iex> {:error, error} = Chatterbex.Text.chunks("Wait [pause 5] here.")
      iex> error.message
      "the pause \\"[pause 5]\\" cannot be made: it has no length. Write [pause 800ms] or [pause 1.5s], at most 60 s."

      iex> {:ok, [chunk]} = Chatterbex.Text.chunks("Well [sigh] no.", unknown_sounds: :drop)
      iex> chunk.text
      "Well no."
  """
  @spec chunks(String.t(), keyword) :: {:ok, [Chunk.t()]} | {:error, Error.t()}
  def chunks(text, options \\ []) do
    with {:ok, options} <- SplitOptions.validate(:chunks, options),
         :ok <- string(text),
         # White space at the end would leave the last paragraph with a pause.
         {:ok, chunks, splitter} <- options |> Splitter.new() |> Splitter.push(String.trim_trailing(text)),
         {:ok, rest} <- Splitter.finish(splitter) do
      {:ok, chunks ++ rest}
    else
      {:error, _chunks, error} -> {:error, error}
      {:error, error} -> {:error, error}
    end
  end

  @doc """
  The same as `chunks/2`, but returns the list or raises `Chatterbex.Error`.

  ## Examples

      iex> [chunk] = Chatterbex.Text.chunks!("One. Two.")
      iex> chunk.text
      "One. Two."
  """
  @spec chunks!(String.t(), keyword) :: [Chunk.t()]
  def chunks!(text, options \\ []), do: Error.unwrap!(chunks(text, options))

  @doc """
  Splits a text that is still being written into chunks, as a lazy Enumerable.

  `source` is an Enumerable of strings, such as the tokens of a language model, or a string. Its parts may be cut
  anywhere, even inside a character. You get a sentence as soon as the text after it shows that it is complete, or at the
  end of the source. A sentence longer than `:max` is cut before its end arrives. The stream pulls from `source` only when
  it must, and keeps at most one chunk's worth of text, so an endless source is fine.

  The chunks are the same as those of `chunks/2` with the same options, however the source is cut. The only exception is
  white space at the very end of the text: a blank line there adds a paragraph pause.

  ## Options

  The options of `chunks/2`, but `:group` is `false` by default: each sentence is spoken at once. With `true` a
  sentence waits for others to fill its chunk.

  ## Errors

  Bad options raise `Chatterbex.Error` at once. An error in the text raises it while you read the stream, after the chunks
  before the error. The reasons are those of `chunks/2`.

  ## Examples

      iex> tokens = ["Hel", "lo, Dr", ". Ray", "! How", " are y", "ou?"]
      iex> tokens |> Chatterbex.Text.stream() |> Enum.map(& &1.text)
      ["Hello, Dr. Ray!", "How are you?"]

      iex> Stream.cycle(["Again", ". "]) |> Chatterbex.Text.stream() |> Enum.take(2) |> Enum.map(& &1.text)
      ["Again.", "Again."]
  """
  @spec stream(Enumerable.t() | String.t(), keyword) :: Enumerable.t()
  def stream(source, options \\ []) do
    Chatterbex.Text.ChunkStream.new(source, Error.unwrap!(SplitOptions.validate(:chunk_stream, options)))
  end

  @doc """
  Returns the codes of the supported languages.

  ## Examples

      iex> "sw" in Chatterbex.Text.languages()
      true
  """
  @spec languages() :: [String.t()]
  def languages, do: Abbreviations.languages()

  @doc """
  Returns the sounds that can be tags in a text: noises such as `[laugh]`, and styles such as `[whispering]`.

  ## Examples

      iex> "clear throat" in Chatterbex.Text.sounds()
      true

      iex> "whispering" in Chatterbex.Text.sounds()
      true
  """
  @spec sounds() :: [String.t()]
  def sounds, do: Markup.sounds()

  defp string(text) when is_binary(text), do: :ok

  defp string(text),
    do: {:error, Error.new(:invalid_text, "the text must be a string, got #{Schema.show(text)}")}
end
