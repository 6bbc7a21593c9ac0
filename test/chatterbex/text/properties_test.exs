defmodule Chatterbex.Text.PropertiesTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Text

  @languages Text.languages()

  # The parts of texts. They have everything that could be cut wrongly: characters of several code points, scripts
  # without spaces, marks that attach to the text before or after them, white space of all kinds.
  @words [
    ~w|a I the word words Dr. e.g. etc. J. U.S. 3.14 1.000,5 10:30 v2.0.1 www.example.com/a.b?c=d a.b@c.de
       well-known don't (so) "so" «so» “so” ‘so’ [sic] [12] *so* end. end! end? end... end… end; end: - — ...|,
    ["https://example.com/" <> String.duplicate("path/", 9), "Donaudampfschifffahrtsgesellschaft."],
    ~w(漢 漢字 漢字かな交じり文 ひらがな カタカナ コンピューター 。 、 ！ ？ 「 」 （ ） …… —— ・ 你好。 “你好！” １２３ ｶﾞｷﾞ。 か\u3099),
    ~w(नमस्ते दुनिया। क्षत्रिय॥ डॉ. مرحبا العالم؟ مُحَمَّد، שלום. עוֹלָם 안녕하세요. 한국어 \u1112\u1161\u11AB Привет. Как? Τι; สวัสดีครับ),
    ["👍🏽", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷", "❗️", "e\u0301e\u0301.", "z̵̢̛̭a̴̛͇l̸̰̈́g̶̦̽o̷̱͝.", "\u0600123", "a\u200Db", "\uFEFF", "\u200F.\u200F"],
    ["\u0301", "\u200D", "\uFE0F", "1\uFE0F\u20E3"]
  ]

  @spaces [
            " ",
            " ",
            " ",
            " ",
            " ",
            "",
            "",
            "",
            "  ",
            "\n",
            "\n",
            "\r\n",
            "\r",
            "\t",
            "\u00A0",
            "\u202F",
            "\u3000"
          ] ++
            [
              "\n\n",
              "\r\n\r\n",
              "\n \n",
              "\n- ",
              "\n* ",
              "\n1. ",
              "\n# ",
              "\n---\n",
              "\u2028",
              "\u2029",
              "\n\u3000"
            ]

  @pauses ["[pause 800ms]", "[pause 1.5s]", "[PAUSE 2 s]", "[pause 0ms]"]
  @sounds ["[laugh]", "[clear throat]", "[whispering]"]
  @names ["laugh", "clear throat", "whispering"]

  # Runs a check on many texts, each from a seed of its own, and says which seed it was that failed.
  defp check_all(count, check) do
    base = ExUnit.configuration()[:seed] * 100_000

    for seed <- (base + 1)..(base + count) do
      :rand.seed(:exsss, seed)

      try do
        check.()
      rescue
        error in ExUnit.AssertionError ->
          reraise %{error | message: "seed #{seed}: #{error.message}"}, __STACKTRACE__

        error ->
          reraise "seed #{seed}: " <> Exception.format(:error, error, __STACKTRACE__), __STACKTRACE__
      end
    end
  end

  defp pick(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)

  # A mark that forms one character with the next one, even with the bracket of a tag.
  @prepended ["\u0600"]

  # A text as the list of its parts. One text leans to a few kinds of words, so that long runs of one kind occur.
  defp parts(tags, more \\ []) do
    kinds = for _ <- 1..:rand.uniform(3), do: pick(@words) ++ more

    for _ <- 1..:rand.uniform(60) do
      word =
        case :rand.uniform(40) do
          1 -> String.duplicate(pick(pick(kinds)), :rand.uniform(30))
          2 -> if(tags == [], do: " ", else: pick(tags))
          _ -> pick(pick(kinds))
        end

      [word, if(:rand.uniform(8) == 1, do: pick(@spaces), else: pick([" ", " ", " ", ""]))]
    end
    |> List.flatten()
  end

  defp options do
    [max: pick([20, 21, 33, 50, 100, 280]), language: pick(@languages), group: pick([true, false])]
  end

  defp visible(text), do: String.replace(text, ~r/\s/u, "")

  defp assert_visible(got, expected) do
    {got, expected} = {visible(got), visible(expected)}
    same = :binary.longest_common_prefix([got, expected])

    context = fn text ->
      text |> binary_part(max(same - 60, 0), min(120, byte_size(text) - max(same - 60, 0)))
    end

    assert got == expected,
           "at byte #{same} got\n  #{inspect(context.(got))}\nand not\n  #{inspect(context.(expected))}"
  end

  # Cuts a text into fragments of a few bytes, or of many.
  defp fragments("", _most), do: []

  defp fragments(text, most) do
    size = min(:rand.uniform(most), byte_size(text))
    <<fragment::binary-size(size), rest::binary>> = text
    [fragment | fragments(rest, most)]
  end

  test "nothing visible is lost, and nothing is longer than the limit" do
    check_all(3000, fn ->
      parts = parts(@pauses ++ @sounds)
      text = Enum.join(parts)
      options = options()
      chunks = Text.chunks!(text, [sounds: @names] ++ options)

      for chunk <- chunks do
        assert String.length(chunk.text) <= options[:max], "#{inspect(chunk)} is too long"
        assert chunk.text == String.trim(chunk.text)
        refute chunk.text =~ ~r/[\n\r\t]|  /
        assert chunk.text != "" or chunk.pause > 0 or text =~ "[pause 0ms]"
        assert chunk.speakable == (chunk.text =~ ~r/[\p{L}\p{N}]/u)
      end

      expected = for part <- parts, part not in @pauses, do: part
      assert_visible(Enum.map_join(chunks, & &1.text), Enum.join(expected))
    end)
  end

  test "sentences lose nothing visible" do
    check_all(1500, fn ->
      text = Enum.join(parts(@pauses ++ @sounds ++ ["[pause", "[laugh"]))
      sentences = Text.sentences!(text, language: pick(@languages))
      for sentence <- sentences, do: assert(sentence == String.trim(sentence) and sentence != "")
      assert_visible(Enum.join(sentences), text)
    end)
  end

  test "dropped sounds leave everything else" do
    check_all(500, fn ->
      parts = parts(@sounds)
      chunks = Text.chunks!(Enum.join(parts), [unknown_sounds: :drop] ++ options())
      expected = for part <- parts, part not in @sounds, do: part
      assert_visible(Enum.map_join(chunks, & &1.text), Enum.join(expected))
    end)
  end

  test "no character, word or tag is cut" do
    check_all(3000, fn ->
      text = Enum.join(parts(@sounds, pick([[], @prepended])))
      options = options()
      chunks = Text.chunks!(text, [sounds: @names] ++ options)
      places = places(text)

      Enum.reduce(chunks, 0, fn chunk, before ->
        # The end of each chunk, counted in visible code points.
        at = before + (chunk.text |> visible() |> points())

        case places do
          %{^at => place} ->
            assert cut?(place, chunk, options[:max]), "#{inspect(chunk)} ends at #{inspect(place)}"

          _inside ->
            flunk("a character is cut after #{inspect(chunk)} in #{inspect(text)}")
        end

        at
      end)
    end)
  end

  test "no tag is cut, however it is written and wherever the text is cut into fragments" do
    check_all(1500, fn ->
      names = Enum.map(Text.sounds(), &pick([&1, String.upcase(&1), String.capitalize(&1), " " <> &1]))
      parts = parts(Enum.map(names, &"[#{&1}]"))
      text = parts |> Enum.join() |> String.trim_trailing()
      options = [sounds: Text.sounds()] ++ options()
      chunks = Text.chunks!(text, options)
      assert text |> fragments(pick([1, 3, 12])) |> Text.stream(options) |> Enum.to_list() == chunks
      written = for part <- parts, name = tag(part), do: "[#{name}]"
      assert Enum.flat_map(chunks, &tags(&1.text)) == written
    end)
  end

  defp tag("[" <> rest) do
    name = rest |> String.trim_trailing("]") |> String.trim() |> String.downcase()
    if name in Text.sounds(), do: name
  end

  defp tag(_part), do: nil

  defp tags(text), do: ~r/\[(?:#{Enum.join(Text.sounds(), "|")})\]/ |> Regex.scan(text) |> List.flatten()

  test "a tag stays with the words that it applies to" do
    words = ["I", "know.", "you", "and", "then;", "but,", "never!", "it", "(so)", "Dr.", "Who?", "e.g."]

    check_all(1000, fn ->
      text =
        Enum.map_join(1..:rand.uniform(60), " ", fn _ ->
          word = pick(words)
          if :rand.uniform(5) == 1, do: "[#{pick(Chatterbex.Text.Markup.styles())}] #{word}", else: word
        end)

      # A tag and the longest word fit into any of these.
      chunks =
        Text.chunks!(text, sounds: Text.sounds(), max: pick([25, 40, 80, 280]), group: pick([true, false]))

      for chunk <- chunks do
        refute String.ends_with?(chunk.text, Enum.map(Chatterbex.Text.Markup.styles(), &"[#{&1}]")),
               "#{inspect(chunk)} leaves a tag alone in #{inspect(text)}"
      end
    end)
  end

  test "the small letters of a tag say nothing about how sentences begin" do
    for tag <- ["", "[laugh] ", "[whispering] "] do
      assert [_one] = Text.sentences!(tag <> "It was 5 p.m. (roughly!) when we left.")
      assert [_one] = Text.sentences!(tag <> "It rained. but not here.")
      assert [_one, _other] = Text.sentences!(tag <> "it rained. but not here.")
    end
  end

  # By the number of visible code points before it, each place between two graphemes of a run without white space: the
  # graphemes beside it and the run. `:space` where white space is, and `:marked` where white space and a mark on it
  # are one grapheme.
  defp places(text) do
    # A text is not cut at the space in a tag.
    text = String.replace(text, ~r/(?<!\x{0600})\[clear throat\]/u, "[clearthroat]")

    marked =
      text
      |> String.split(~r/\s+/u)
      |> Enum.map_reduce(0, fn run, at -> {{at + points(run), :marked}, at + points(run)} end)
      |> elem(0)
      |> Map.new()

    text
    |> String.graphemes()
    |> Enum.chunk_by(&(visible(&1) == ""))
    |> Enum.reject(&(visible(hd(&1)) == ""))
    |> Enum.reduce({Map.put(marked, 0, :space), 0}, fn graphemes, {places, at} ->
      run = Enum.join(graphemes)

      {places, at} =
        graphemes
        |> Enum.zip(tl(graphemes) ++ [nil])
        |> Enum.reduce({places, at}, fn {left, right}, {places, at} ->
          at = at + (left |> visible() |> points())
          {Map.put(places, at, {left, right, run}), at}
        end)

      {Map.put(places, at, :space), at}
    end)
    |> elem(0)
  end

  defp points(text), do: text |> String.to_charlist() |> length()

  # Without white space a text is cut only beside a character of a script without spaces, after a mark that ends
  # sentences or clauses without one and what closes it, beside a tag, or in a run that is longer than a chunk.
  @free "[\\p{Han}\\p{Hiragana}\\p{Katakana}\\x{3001}-\\x{303F}\\x{FF01}-\\x{FF64}ー।॥؟،]"
  @cut_after ~r/(#{@free}[^\p{L}\p{N}]*|\[(laugh|clear throat|whispering)\][\p{M}\x{200D}]*)$/u
  @cut_before ~r/^(#{@free}|\[)/u

  defp cut?(:space, _chunk, _max), do: true
  defp cut?(:marked, chunk, _max), do: chunk.kind == :grapheme

  defp cut?({left, right, run}, chunk, max) do
    left =~ ~r/\s$/u or chunk.text =~ @cut_after or right =~ @cut_before or String.length(run) > max or
      (right =~ ~r/^\s/u and chunk.kind == :grapheme)
  end

  test "chunks do not depend on the fragments" do
    check_all(2000, fn ->
      text = @pauses |> Kernel.++(@sounds) |> parts(@prepended) |> Enum.join() |> String.trim_trailing()
      options = [sounds: @names] ++ options()
      chunks = Text.chunks!(text, options)
      assert text |> fragments(pick([1, 3, 12, 200])) |> Text.stream(options) |> Enum.to_list() == chunks
    end)
  end

  test "errors do not depend on the fragments, and follow the chunks before them" do
    check_all(500, fn ->
      fault = pick(["[pause 5]", "[pause 99s]", "[pause: 1s]", "[cough]", "\xFF", "\xE6\xBCx"])
      text = Enum.join(parts(@pauses)) <> "\n\n" <> fault <> " " <> Enum.join(parts(@pauses))
      options = options()
      assert {:error, error} = Text.chunks(text, options)
      assert error.reason in [:invalid_text, :not_supported]

      for most <- [1, 12, 5000] do
        assert text |> fragments(most) |> read(options) ==
                 {text |> before(fault) |> Text.stream(options) |> Enum.to_list(), error}
      end
    end)
  end

  defp before(text, fault), do: text |> String.split(fault, parts: 2) |> hd()

  # The chunks of a stream and the error that ends it.
  defp read(fragments, options) do
    me = self()

    error =
      assert_raise Chatterbex.Error, fn ->
        fragments |> Text.stream(options) |> Enum.each(&send(me, {:chunk, &1}))
      end

    {received(), error}
  end

  defp received do
    receive do
      {:chunk, chunk} -> [chunk | received()]
    after
      0 -> []
    end
  end
end
