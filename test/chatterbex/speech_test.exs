defmodule Chatterbex.SpeechTest do
  @moduledoc """
  What is said is understood: the built-in voice through the whole stack, heard by pocketsphinx.
  """
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Recognition}

  @moduletag :tmp_dir
  @moduletag timeout: 300_000
  @moduletag skip: Recognition.missing()

  @sentences [
    "The weather is nice today.",
    "Please open the window before you leave.",
    "He went to the store to buy some bread and milk.",
    "Can you tell me what time it is?",
    "She has been working at the hospital for many years.",
    "The children played in the park until dark.",
    "The president said that the economy is growing.",
    "My brother lives in a house near the river.",
    "The train will arrive in about ten minutes.",
    "This is one of the most important questions of our time."
  ]

  setup_all do
    server = start_supervised!({Chatterbex, model: :hibari})
    :ok = Chatterbex.await_ready(server: server, timeout: 60_000)
    %{server: server}
  end

  test "ten sentences are understood, and the same seed repeats them exactly", %{server: server, tmp_dir: dir} do
    spoken = for sentence <- @sentences, do: {sentence, Chatterbex.generate!(server, sentence, seed: 11)}
    [{share, heard}] = Recognition.understood([spoken], dir)
    assert share >= 0.9, inspect(heard)

    for {sentence, audio} <- spoken do
      again = Chatterbex.generate!(server, sentence, seed: 11)
      assert again.samples == audio.samples
    end

    refute Chatterbex.generate!(server, hd(@sentences), seed: 12).samples ==
             elem(hd(spoken), 1).samples
  end

  test "ten paragraphs are understood equally well whole, streamed and sentence by sentence, without clicks",
       %{
         server: server,
         tmp_dir: dir
       } do
    paragraphs = for n <- 0..9, do: Enum.map(0..1, &Enum.at(@sentences, rem(n + 3 * &1, 10)))
    text = Enum.map_join(paragraphs, "\n\n", &Enum.join(&1, " "))

    alone =
      for sentence <- List.flatten(paragraphs),
          do: {sentence, Chatterbex.generate!(server, sentence, seed: 3)}

    whole = Chatterbex.generate!(server, text, seed: 3)
    assert whole.metadata.pieces == 10

    # pocketsphinx hears a sentence at a time: each stream is cut where its pieces are.
    chunks = server |> Chatterbex.stream(text, seed: 3) |> Enum.to_list()
    streamed = for {_piece, parts} <- by_piece(chunks), do: {text_of(parts), join(parts)}
    assert length(streamed) == 20

    paragraphs = Enum.zip(Enum.map(paragraphs, &Enum.join(&1, " ")), cut(whole))

    [{one_by_one, _heard}, {in_a_stream, in_stream}, {as_a_whole, in_whole}] =
      Recognition.understood([alone, streamed, paragraphs], dir)

    assert in_a_stream >= one_by_one - 0.03, inspect(in_stream)
    assert as_a_whole >= one_by_one - 0.03, inspect(in_whole)

    for audios <- [Enum.map(alone, &elem(&1, 1)), chunks] do
      assert largest_joint(audios) <= audios |> Enum.map(&largest_step(floats(&1))) |> Enum.max()
    end
  end

  defp by_piece(chunks),
    do: chunks |> Enum.reject(& &1.metadata[:pause]) |> Enum.group_by(& &1.metadata.piece) |> Enum.sort()

  defp text_of([chunk | _more]), do: chunk.metadata.text
  defp join([first | _] = parts), do: %{first | samples: Enum.map_join(parts, & &1.samples)}

  # The paragraphs of the whole: between them are 700 ms of silence, exact zeros.
  defp cut(whole) do
    silence = :binary.copy(<<0::32>>, div(700 * whole.sample_rate, 1000))

    whole.samples
    |> :binary.split(silence, [:global, :trim_all])
    |> Enum.map(&%Audio{whole | samples: aligned(&1)})
  end

  defp aligned(samples), do: binary_part(samples, 0, byte_size(samples) - rem(byte_size(samples), 4))

  defp floats(%Audio{samples: samples}), do: for(<<sample::float-32-little <- samples>>, do: sample)

  defp largest_step(samples),
    do: samples |> Enum.zip(tl(samples)) |> Enum.map(fn {a, b} -> abs(a - b) end) |> Enum.max()

  defp largest_joint(audios) do
    audios
    |> Enum.map(&floats/1)
    |> Enum.chunk_every(2, 1, :discard)
    |> Enum.map(fn [one, other] -> abs(List.last(one) - hd(other)) end)
    |> Enum.max()
  end
end
