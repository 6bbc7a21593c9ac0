# Speaks a file of any length into a WAV, in constant memory.
#
#     mix run examples/speak_file.exs book.txt book.wav

alias Chatterbex.Audio.Writer

case System.argv() do
  [text, wav] ->
    text
    |> File.read!()
    |> Chatterbex.stream(
      progress: fn done -> IO.write(:stderr, "\r#{done.characters} of #{done.total} characters") end
    )
    |> Enum.into(Writer.new(wav))

    {:ok, audio} = Chatterbex.Audio.read(wav)
    IO.puts("\n#{wav}: #{Float.round(Chatterbex.Audio.duration(audio), 1)} s")

  _other ->
    IO.puts(:stderr, "usage: mix run examples/speak_file.exs TEXT WAV")
    System.halt(2)
end
