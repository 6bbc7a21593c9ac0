# Coverage-guided fuzzing of saved voices, which are read by Elixir. bin/fuzz runs it:
#
#     mix run --no-start native/fuzz/voice.exs CORPUS FOUND runs|seconds NUMBER SEED
#
# Each file is made from one that was kept, by a few random changes. A file is kept when it reaches a line of code, or
# gets a kind of answer, that no file did before. One that ends the reader, takes two seconds or takes 512 MB is written to
# the folder FOUND.

defmodule Fuzz.Voice do
  @moduledoc false

  alias Chatterbex.{JSON, Voice}
  alias Chatterbex.Voice.{Safetensors, Saved}

  @modules [Saved, Safetensors, JSON, Voice.Quality]
  @batch 200
  @most_bytes 16_384
  @slowest 2_000
  @most_words div(512 * 1024 * 1024, :erlang.system_info(:wordsize))

  @words ~w(dtype shape data_offsets __metadata__ chatterbex_voice family turbo name F32 F64 F16 BF16 I64 U8 BOOL sha256 seconds
            sample_rate null true -1 0 1 1e999 0.5 18446744073709551615 9007199254740993 [] {} "" , : \\u0000 \\ud800 é)

  def run(corpus, found, limit, seed) do
    if seed == 0, do: :rand.seed(:exsss), else: :rand.seed(:exsss, seed)
    {:ok, _cover} = start_cover()
    kept = for path <- Path.wildcard(Path.join(corpus, "*")), do: File.read!(path)

    state = %{
      corpus: corpus,
      found: found,
      files: %{},
      reader: nil,
      lines: MapSet.new(),
      kinds: MapSet.new(),
      tried: 0,
      slowest: 0,
      peak: 0
    }

    state = Enum.reduce([whole() | kept], state, &(&1 |> List.wrap() |> batch(&2)))
    began = now()

    state = until(state, limit, began)
    IO.puts("files: #{state.tried}")
    IO.puts("slowest, in whole seconds: #{div(state.slowest, 1000)}")
    IO.puts("peak memory in MB: #{div(state.peak, 1_048_576)}")
    IO.puts("kept: #{map_size(state.files)}, lines reached: #{MapSet.size(state.lines)}")
  end

  defp start_cover do
    with {:ok, cover} <- :cover.start() do
      for module <- @modules, do: {:ok, ^module} = :cover.compile_beam(:code.which(module))
      {:ok, cover}
    end
  end

  defp until(state, limit, began) do
    if more?(limit, state, began),
      do: for(_n <- 1..@batch, do: made(state.files)) |> batch(state) |> until(limit, began),
      else: state
  end

  defp more?({"runs", runs}, state, _began), do: state.tried < runs
  defp more?({"seconds", 0}, _state, _began), do: true
  defp more?({"seconds", seconds}, _state, began), do: now() - began < seconds * 1000

  # Which of the files reached something is asked only where one of them did.
  defp batch(files, state) do
    state = Enum.reduce(files, state, fn file, state -> file |> read(state) |> note(file) end)

    if MapSet.subset?(lines(), state.lines) do
      state
    else
      Enum.reduce(files, state, fn file, state ->
        Enum.each(@modules, &:cover.reset/1)
        {_kind, state} = read(file, state)
        reached = lines()
        state = if MapSet.subset?(reached, state.lines), do: state, else: keep(state, file)
        %{state | lines: MapSet.union(state.lines, reached)}
      end)
    end
  end

  defp note({kind, state}, file) do
    state = %{state | tried: state.tried + 1}

    if MapSet.member?(state.kinds, kind),
      do: state,
      else: keep(%{state | kinds: MapSet.put(state.kinds, kind)}, file)
  end

  defp keep(state, file) do
    File.write!(Path.join(state.corpus, digest(file)), file)
    %{state | files: Map.put(state.files, map_size(state.files), file)}
  end

  defp lines do
    {:result, lines, []} = :cover.analyse(@modules, :coverage, :line)
    for {line, {1, 0}} <- lines, into: MapSet.new(), do: line
  end

  ## Reading, in a process that may be ended

  defp read(file, %{reader: nil} = state) do
    parent = self()

    {reader, _monitor} =
      :erlang.spawn_opt(fn -> reader(parent) end, [
        :monitor,
        max_heap_size: %{size: @most_words, kill: true, error_logger: false}
      ])

    read(file, %{state | reader: reader})
  end

  defp read(file, %{reader: reader} = state) do
    began = now()
    send(reader, {:read, file})

    receive do
      {:answer, kind} ->
        {kind, %{state | slowest: max(state.slowest, now() - began), peak: peak(state)}}

      {:DOWN, _monitor, :process, ^reader, reason} ->
        found(state, file, "the reader ended: #{inspect(reason, limit: 20)}")
    after
      @slowest -> found(state, file, "no answer within #{@slowest} ms")
    end
  end

  # Looked at now and then: it takes longer than most files do.
  defp peak(%{tried: tried, peak: peak}) when rem(tried, 1000) == 0, do: max(peak, :erlang.memory(:total))
  defp peak(state), do: state.peak

  defp found(state, file, what) do
    path = Path.join(state.found, "voice-#{digest(file)}")
    File.write!(path, file)
    IO.puts("#{path}: #{what}")
    System.halt(1)
  end

  defp reader(parent) do
    receive do
      {:read, file} ->
        send(parent, {:answer, {answer(Saved.parse(file)), file |> Saved.read() |> answer()}})
        reader(parent)
    end
  end

  # An answer is a voice, which can be saved again, or an error in words. Its kind is what it says, without what it quotes.
  defp answer({:ok, %Saved{data: data, name: name}}) do
    true = is_nil(name) or String.valid?(name)
    {:ok, %Saved{name: "Ann"}} = Saved.new(data, %{"name" => "Ann"})
    :voice
  end

  defp answer({:error, why}) do
    true = is_binary(why) and String.valid?(why) and why != ""
    why |> String.split("(") |> hd() |> String.split() |> Enum.filter(&(&1 =~ ~r/\A[a-z]+\z/)) |> Enum.take(8)
  end

  ## Making files

  defp whole do
    header =
      JSON.encode(%{
        "__metadata__" => %{
          "chatterbex_voice" => "1",
          "family" => "turbo",
          "name" => "Ann",
          "seconds" => "6.5"
        },
        "speaker" => %{"dtype" => "F32", "shape" => [1, 4], "data_offsets" => [0, 16]},
        "tokens" => %{"dtype" => "I64", "shape" => [3], "data_offsets" => [16, 40]}
      })

    Safetensors.seal(joined(header, String.duplicate(<<7>>, 40)), %{})
  end

  defp made(files) do
    file = any(files)

    file =
      case {:rand.uniform(4), file} do
        {n, <<size::64-little, header::binary-size(size), data::binary>>} when n > 1 ->
          if n == 2, do: joined(header, changed(data, files)), else: joined(changed(header, files), data)

        {_n, file} ->
          changed(file, files)
      end

    file = binary_part(file, 0, min(byte_size(file), @most_bytes))
    if :rand.uniform(3) == 1 and match?({:ok, _marks}, Safetensors.marks(file)), do: sealed(file), else: file
  end

  defp sealed(file), do: Safetensors.seal(file, %{word() => word()})

  defp joined(header, data), do: <<byte_size(header)::64-little, header::binary, data::binary>>

  defp any(files), do: Map.fetch!(files, :rand.uniform(map_size(files)) - 1)

  defp changed(bytes, files),
    do: Enum.reduce(1..:rand.uniform(4), bytes, fn _n, bytes -> change(bytes, files) end)

  defp change(bytes, files) do
    size = byte_size(bytes)
    from = :rand.uniform(size + 1) - 1
    length = min(size - from, :rand.uniform(16))
    <<before::binary-size(from), part::binary-size(length), rest::binary>> = bytes

    case :rand.uniform(8) do
      1 -> before <> flipped(part) <> rest
      2 -> before <> :rand.bytes(length) <> rest
      3 -> before <> rest
      4 -> before <> word() <> part <> rest
      5 -> before <> word() <> rest
      6 -> before <> part <> part <> rest
      7 -> Regex.replace(~r/\d+/, bytes, fn digits -> if :rand.uniform(3) == 1, do: word(), else: digits end)
      8 -> before <> other(any(files)) <> rest
    end
  end

  defp flipped(<<byte, rest::binary>>),
    do: <<Bitwise.bxor(byte, Bitwise.bsl(1, :rand.uniform(8) - 1)), rest::binary>>

  defp flipped(""), do: <<0>>

  defp other(""), do: ""

  defp other(file) do
    from = :rand.uniform(byte_size(file)) - 1
    binary_part(file, from, min(byte_size(file) - from, :rand.uniform(64)))
  end

  defp word, do: Enum.random(@words)

  defp digest(file), do: :crypto.hash(:sha256, file) |> binary_part(0, 8) |> Base.encode16(case: :lower)
  defp now, do: System.monotonic_time(:millisecond)
end

[corpus, found, kind, number, seed] = System.argv()
Fuzz.Voice.run(corpus, found, {kind, String.to_integer(number)}, String.to_integer(seed))
