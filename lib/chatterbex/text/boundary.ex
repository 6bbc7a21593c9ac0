defmodule Chatterbex.Text.Boundary do
  @moduledoc false
  # Decides from the following text whether a sentence ends after a word that may end one.

  import Chatterbex.Text.Characters

  alias Chatterbex.Text.{Abbreviations, Characters, Lookahead, Markup}

  @typedoc """
  What the answer hangs on: what the last word is (`pending`), the case of the sentence's first letter, and the text's
  language and tags.
  """
  @type state :: %{
          :pending => {kind :: atom, closed? :: boolean} | nil,
          :case => atom,
          :rules => Abbreviations.rules(),
          :tags => Markup.t(),
          optional(atom) => term
        }

  @doc """
  Whether the sentence ends before `text`, which `glue` separates from the last word. It is `:none` where there is no
  question, `:absorb` where `text` begins with what belongs to the last word, and `:more` where too little of the text
  is known.
  """
  @spec answer(String.t(), atom | tuple, state, boolean) :: boolean | :none | :absorb | :more
  def answer(_text, _glue, %{pending: nil}, _last?), do: :none

  # 「走れ！」と言った: the quotation is part of the sentence.
  def answer(<<0x3068::utf8, _rest::binary>>, :none, %{pending: {:hard, true}}, _last?), do: false

  def answer(<<0x3063::utf8, 0x3066::utf8, _rest::binary>>, :none, %{pending: {:hard, true}}, _last?),
    do: false

  def answer(<<0x3063::utf8>>, :none, %{pending: {:hard, true}}, false), do: :more

  # “你好！”——他说
  def answer(<<c::utf8, _rest::binary>>, :none, %{pending: {:hard, _closed?}}, _last?) when is_dash(c),
    do: false

  def answer(text, glue, %{pending: {kind, closed?}} = state, last?) do
    case if(marked_space?(text, glue), do: :absorb, else: Lookahead.next(text, state.tags, last?)) do
      next when next in [:more, :absorb] -> next
      next when next in [:pause, :end] -> true
      next -> ends?(kind, next, closed?, state, last?)
    end
  end

  defp ends?(:hard, _next, _closed?, _state, _last?), do: true
  defp ends?(kind, _next, _closed?, _state, _last?) when kind in [:always, :marker], do: false
  defp ends?(_kind, :punctuation, _closed?, _state, _last?), do: false

  # In a text that starts its sentences with lower-case letters, one may follow.
  defp ends?(:normal, {:letter, :lower, _text}, closed?, state, _last?),
    do: state.case == :lower and not closed?

  defp ends?(:normal, _next, _closed?, _state, _last?), do: true

  defp ends?(:number, :digit, _closed?, _state, _last?), do: false
  defp ends?(:number, {:letter, :upper, text}, _closed?, _state, last?), do: not_roman(text, last?)
  defp ends?(:number, next, closed?, state, last?), do: ends?(:normal, next, closed?, state, last?)

  defp ends?(:ordinal, {:letter, :uncased, _text}, _closed?, _state, _last?), do: true

  defp ends?(:ordinal, {:letter, :upper, _text}, _closed?, %{rules: %{ordinals: kind}}, _last?)
       when kind != :before_any,
       do: true

  defp ends?(kind, {:letter, letter, text}, _closed?, %{rules: rules}, last?) when letter != :lower do
    if rules.starters == %{},
      do: kind == :maybe,
      else: Lookahead.starter?(text, rules.starters, last?)
  end

  defp ends?(_kind, _next, _closed?, _state, _last?), do: false

  # "Vol. II" continues, "He said no. It" does not.
  defp not_roman(<<c, rest::binary>>, last?) when c in [?I, ?V, ?X, ?L, ?C], do: not_roman(rest, last?)
  defp not_roman("", last?), do: if(last?, do: false, else: :more)
  defp not_roman(<<c::utf8, _rest::binary>>, _last?), do: Characters.kind(c) in [:upper, :lower]

  @doc """
  Whether the space before `text` has a mark on it: then it is a character, and nothing to cut at.
  """
  @spec marked_space?(String.t(), atom | tuple) :: boolean
  def marked_space?(<<c::utf8, _rest::binary>>, glue) when c >= 0x300 and glue != :none, do: joined?(?\s, c)
  def marked_space?(_text, _glue), do: false
end
