defmodule Chatterbex.Text.Markup do
  @moduledoc false
  # Tags in the text: `[pause 800ms]`, `[laugh]`, `[whispering]`. Other words in brackets are text.

  alias Chatterbex.Error

  @noises ["clear throat", "sigh", "shush", "cough", "groan", "sniff", "gasp", "chuckle", "laugh"]
  # Styles for the text after the tag.
  @styles ~w(whispering angry fear surprised crying happy sarcastic dramatic narration advertisement)
  @sounds @noises ++ @styles

  # A pause tag must end within this number of bytes after its bracket.
  @longest 64
  @longest_pause 60_000

  @enforce_keys [:names, :sounds, :unknown_sounds]
  defstruct [:names, :sounds, :unknown_sounds, :longest]

  @type t :: %__MODULE__{
          names: [String.t()],
          sounds: [String.t()],
          unknown_sounds: :refuse | :drop | :keep,
          longest: pos_integer
        }

  @doc """
  The sounds that are known to be tags, even if the model has none of them.
  """
  @spec sounds() :: [String.t()]
  def sounds, do: @sounds

  @doc """
  The sounds that are styles for the text after them.
  """
  @spec styles() :: [String.t()]
  def styles, do: @styles

  @doc """
  Which tags to see, and what to do about them. `:keep` takes every tag as it stands, without a check.
  """
  @spec new([String.t()], :refuse | :drop | :keep) :: t
  def new(sounds, unknown_sounds) do
    names = Enum.uniq(sounds ++ @sounds)
    longest = names |> Enum.map(&byte_size/1) |> Enum.max() |> Kernel.+(16) |> max(@longest)
    %__MODULE__{names: names, sounds: sounds, unknown_sounds: unknown_sounds, longest: longest}
  end

  @doc """
  Reads a tag at the beginning of `text`, which begins with `[`.

  `:more` asks for more text. It never does if `last` says that this is the last text.
  """
  @spec read(binary, t, boolean) ::
          {:pause, non_neg_integer, binary}
          | {:sound | :style, String.t(), binary}
          | {:drop, binary}
          | {:error, Error.t()}
          | :text
          | :more
  def read(<<?[, rest::binary>>, %__MODULE__{} = tags, last) do
    {inside, ending} = inside(rest, tags.longest)

    case ending do
      {:closed, rest} -> closed(inside, rest, tags)
      # Does not wait for text that can no longer become a tag.
      :end when not last -> if(possible?(inside, tags), do: :more, else: :text)
      _end_or_unclosed -> unclosed(inside, tags)
    end
  end

  defp inside(rest, longest) do
    case :binary.match(rest, ["]", "["], scope: {0, min(byte_size(rest), longest)}) do
      {at, 1} ->
        <<inside::binary-size(at), end_byte, after_end::binary>> = rest
        {inside, if(end_byte == ?], do: {:closed, after_end}, else: :unclosed)}

      :nomatch when byte_size(rest) < longest ->
        {rest, :end}

      :nomatch ->
        {binary_part(rest, 0, longest), :unclosed}
    end
  end

  defp closed(inside, rest, tags) do
    name = normal(inside)

    cond do
      name in tags.names -> sound(name, inside, rest, tags)
      pause?(name) -> pause(name, inside, rest, tags)
      true -> :text
    end
  end

  defp unclosed(inside, tags) do
    if tags.unknown_sounds != :keep and pause?(normal(inside)) do
      {:error, malformed("[" <> (inside |> whole() |> String.slice(0, 20)), "it is not closed")}
    else
      :text
    end
  end

  defp sound(name, inside, rest, %{unknown_sounds: :keep}), do: {kind(name), "[#{inside}]", rest}

  defp sound(name, _inside, rest, tags) do
    cond do
      name in tags.sounds -> {kind(name), "[#{name}]", rest}
      tags.unknown_sounds == :drop -> {:drop, rest}
      true -> {:error, unknown_sound(name, tags.sounds)}
    end
  end

  defp kind(name), do: if(name in @styles, do: :style, else: :sound)

  defp pause(_name, inside, rest, %{unknown_sounds: :keep}), do: {:sound, "[#{inside}]", rest}

  defp pause(name, inside, rest, _tags) do
    case Regex.run(~r/^pause (\d{1,9})(?:\.(\d{1,9}))?\s?(ms|s)$/, name) do
      [_all, whole, fraction, unit] -> pause_of(milliseconds(whole, fraction, unit), inside, rest)
      nil -> {:error, malformed("[#{inside}]", "it has no length")}
    end
  end

  defp pause_of(milliseconds, _inside, rest) when milliseconds <= @longest_pause,
    do: {:pause, milliseconds, rest}

  defp pause_of(_milliseconds, inside, _rest),
    do: {:error, malformed("[#{inside}]", "it is longer than #{div(@longest_pause, 1000)} s")}

  defp milliseconds(whole, fraction, unit) do
    number = String.to_float(whole <> "." <> if(fraction == "", do: "0", else: fraction))
    round(if unit == "s", do: number * 1000, else: number)
  end

  # "[pauses]" and "[paused]" are text; "[pause]", "[pause:1s]" and "[pause 5]" are meant to be pauses.
  defp pause?(<<"pause", c, _rest::binary>>), do: c not in ?a..?z and c not in [?-, ?_] and c < 0x80
  defp pause?(name), do: name == "pause"

  # Whether more text can still make it a tag: the text so far is the beginning of a name.
  defp possible?(inside, tags) do
    inside = inside |> whole() |> normal_start()
    Enum.any?(["pause" | tags.names], &(String.starts_with?(&1, inside) or String.starts_with?(inside, &1)))
  end

  # Without an incomplete character at the end.
  defp whole(binary) do
    case :unicode.characters_to_binary(binary) do
      valid when is_binary(valid) -> valid
      {_error_or_incomplete, valid, _rest} -> valid
    end
  end

  defp normal(inside), do: inside |> normal_start() |> String.trim_trailing()

  defp normal_start(inside) do
    inside |> String.downcase() |> String.trim_leading() |> String.replace(~r/\s+/, " ")
  end

  defp malformed(tag, fault) do
    Error.new(
      :invalid_text,
      "the pause #{inspect(tag, printable_limit: 80)} cannot be made: #{fault}. " <>
        "Write [pause 800ms] or [pause 1.5s], at most #{div(@longest_pause, 1000)} s.",
      %{tag: tag, max_pause: @longest_pause}
    )
  end

  defp unknown_sound(name, sounds) do
    has =
      if sounds == [],
        do: "no sounds",
        else: "only the sounds " <> Enum.map_join(sounds, ", ", &"[#{&1}]")

    Error.new(
      :not_supported,
      "the text has the sound [#{name}], and the model has #{has}. " <>
        "Take it out of the text, or leave it out with unknown_sounds: :drop.",
      %{sound: name, sounds: sounds}
    )
  end
end
