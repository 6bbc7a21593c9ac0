defmodule Mix.Tasks.Chatterbex.Say do
  @shortdoc "Speaks a text, aloud or to a file"

  @moduledoc """
  Speaks a text, aloud or to a file: WAV, FLAC, Ogg Opus or MP3.

      $ mix chatterbex.say "Hello, world!"
      $ mix chatterbex.say "Hello, world!" -o hello.wav
      $ mix chatterbex.say -f article.txt -o article.mp3
      $ echo "Hello, world!" | mix chatterbex.say -o hello.wav

  The text comes from the arguments, from `--file` or from the standard input. It may be as long as a book: it is spoken
  sentence by sentence, in constant memory. Without `--output` it plays while the rest is being made, with a player of the
  system: `afplay` on macOS; `pw-play`, `paplay`, `aplay` or `play` on Linux. In WSL it is one of these if WSLg has a sound
  server, otherwise Windows plays (`powershell.exe`).

  ## Options

    * `-o`, `--output FILE` - write a file instead of playing: `.wav`, `.flac`, `.opus` or `.mp3`; it appears when it is complete
    * `-f`, `--file FILE` - read the text from a file
    * `-m`, `--model NAME` - the model (default `hibari`, the built-in voice)
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `auto`)
    * `-v`, `--voice NAME` - a voice of the model or of the configured folder (default: the model's own)
    * `--voice-file FILE` - a recording or a saved voice to speak in instead
    * `-l`, `--language CODE` - the language of the text, as in `de` (`multilingual`)
    * `--speed NUMBER` - the pace, from 0.5 to 2.0 (`hibari`)
    * `--exaggeration NUMBER` - how lively, from 0.0 to 2.0 (`english`, `multilingual`)
    * `--cfg-weight NUMBER` - how closely the model follows the text, from 0.0 (`english`, `multilingual`)
    * `--temperature NUMBER` - how freely the model speaks, from 0.0 (all Chatterbox models)
    * `--max-tokens NUMBER` - speech tokens, 25 per second, after which a sentence is cut (all Chatterbox models)
    * `--seed NUMBER` - the same text with the same seed gives the same audio
    * `--checkpoint DIR` - a folder with the model's files
    * `--repo OWNER/NAME` - the repository of a fine-tune of the model
    * `--t3 FILE` - a fine-tuned T3: its path or, with `--repo`, its name in the repository
    * `--download` - fetch missing files of the model
    * `--timeout SECONDS` - how long to wait for the next audio (default 600)
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `-q`, `--quiet` - print errors only

  It reports on standard error, with a progress bar if that is a terminal. The exit status is not 0 if anything fails.
  """

  use Mix.Task

  alias Chatterbex.{Audio, CommandLine, Error, Files, Player, Terminal}
  alias Chatterbex.Text.Validation

  @server [:model, :device, :home, :checkpoint, :repo, :t3, :download]
  @request [:voice, :language, :speed, :exaggeration, :cfg_weight, :temperature, :max_tokens, :seed]

  @switches [
    output: :string,
    file: :string,
    model: :string,
    device: :string,
    voice: :string,
    voice_file: :string,
    language: :string,
    speed: :float,
    exaggeration: :float,
    cfg_weight: :float,
    temperature: :float,
    max_tokens: :integer,
    seed: :integer,
    checkpoint: :string,
    repo: :string,
    t3: :string,
    download: :boolean,
    timeout: :integer,
    home: :string,
    quiet: :boolean,
    help: :boolean
  ]

  @aliases [o: :output, f: :file, m: :model, d: :device, v: :voice, l: :language, q: :quiet, h: :help]

  # Characters of the bar.
  @bar 30

  @impl true
  def run(arguments) do
    {options, words, invalid} = OptionParser.parse(arguments, strict: @switches, aliases: @aliases)

    cond do
      invalid != [] ->
        fail(CommandLine.invalid(hd(invalid), @switches, "chatterbex.say"))

      options[:help] ->
        Mix.Task.run("help", ["chatterbex.say"])

      options[:voice] && options[:voice_file] ->
        fail("give the voice either as --voice or as --voice-file, not both")

      true ->
        say(words, options)
    end
  end

  defp say(words, options) do
    CommandLine.start()
    show = show(options)

    with {:ok, text} <- text(words, options),
         {:ok, _speakable} <- Validation.check(text),
         {:ok, sink} <- sink(options[:output]),
         {:ok, seconds, took} <- speak(text, sink, options, show) do
      show.("")
      unless options[:quiet], do: IO.puts(:stderr, report(sink, seconds, took))
    else
      {:error, error} ->
        show.("")
        fail(message(error))
    end
  end

  defp message(%Error{message: message}), do: message
  defp message(message), do: message

  defp speak(text, sink, options, show) do
    with {:ok, server} <- Chatterbex.start_link(Keyword.take(options, @server)),
         show.("loading the model ..."),
         :ok <- Chatterbex.await_ready(server: server),
         show.("speaking ..."),
         started = System.monotonic_time(),
         {:ok, seconds} <- deliver(server, text, request(options, show), sink) do
      took = System.convert_time_unit(System.monotonic_time() - started, :native, :microsecond)
      {:ok, seconds, took / 1_000_000}
    else
      {:error, error} ->
        give_up(sink)
        {:error, error}
    end
  end

  defp request(options, show) do
    options
    |> Keyword.take(@request)
    |> Keyword.merge(if(options[:voice_file], do: [voice: {:file, options[:voice_file]}], else: []))
    |> Keyword.put(:timeout, Keyword.get(options, :timeout, 600) * 1000)
    |> Keyword.put(:progress, &show.(bar(&1)))
  end

  defp text([], options) do
    case options[:file] do
      nil -> standard_input()
      path -> Files.read(path)
    end
  end

  defp text(words, options) do
    if options[:file],
      do: {:error, "give the text either as arguments or with --file, not both"},
      else: {:ok, Enum.join(words, " ")}
  end

  defp standard_input do
    if Terminal.terminal?(0) do
      {:error,
       ~s(nothing to say: give a text, as in `mix chatterbex.say "Hello, world!"`, or --file, or pipe one in)}
    else
      # As bytes: whether they are UTF-8 is checked with every other text.
      :io.setopts(:standard_io, encoding: :latin1)

      case IO.binread(:stdio, :eof) do
        text when is_binary(text) -> {:ok, text}
        :eof -> {:ok, ""}
        {:error, reason} -> {:error, "cannot read standard input: #{inspect(reason)}"}
      end
    end
  end

  defp sink(nil), do: with({:ok, player} <- Player.find(), do: {:ok, {:player, player}})
  defp sink(path), do: with({:ok, writer} <- Audio.Writer.open(path), do: {:ok, {:file, writer}})

  # The seconds of audio that were delivered.
  defp deliver(server, text, request, sink) do
    server
    |> Chatterbex.stream(text, request)
    |> pieces(sink)
    |> Enum.reduce({0.0, sink}, &deliver_one/2)
    |> finish()
  rescue
    error in Error -> {:error, error}
  end

  # A player leaves a gap between two files, so it gets whole sentences, with the pause after them.
  defp pieces(stream, {:player, _player}) do
    Stream.chunk_while(
      stream,
      [],
      fn
        %{metadata: %{pause: _silence}} = audio, piece -> {:cont, join([audio | piece]), []}
        audio, piece -> {:cont, [audio | piece]}
      end,
      fn
        [] -> {:cont, []}
        piece -> {:cont, join(piece), []}
      end
    )
  end

  defp pieces(stream, {:file, _writer}), do: stream

  defp join(parts), do: parts |> Enum.reverse() |> Audio.concat() |> Error.unwrap!()

  defp deliver_one(audio, {seconds, sink}), do: {seconds + Audio.duration(audio), put!(sink, audio)}

  defp put!({:player, player} = sink, audio) do
    with {:error, error} <- Player.play(player, audio), do: raise(error)
    sink
  end

  defp put!({:file, writer}, audio) do
    case Audio.Writer.write(writer, audio) do
      {:ok, writer} -> {:file, writer}
      {:error, error} -> raise error
    end
  end

  defp finish({seconds, {:player, _player}}), do: {:ok, seconds}
  defp finish({seconds, {:file, writer}}), do: with(:ok <- Audio.Writer.close(writer), do: {:ok, seconds})

  defp give_up({:file, writer}), do: Audio.Writer.abort(writer)
  defp give_up({:player, _player}), do: :ok

  defp report({:player, {player, _arguments}}, seconds, _took),
    do: "played #{round_to(seconds, 2)} s of audio with #{player}"

  defp report({:file, writer}, seconds, took) when seconds > 0 do
    "wrote #{writer.path}: #{round_to(seconds, 2)} s of audio, real-time factor #{round_to(took / seconds, 3)}"
  end

  defp report({:file, writer}, _seconds, _took), do: "wrote #{writer.path}: 0.00 s of audio"

  defp bar(%{characters: characters, total: total, seconds: seconds}) do
    full = div(@bar * characters, max(total, 1))

    "speaking [#{String.duplicate("=", full)}#{String.duplicate(" ", @bar - full)}] " <>
      "#{div(100 * characters, max(total, 1))} %, #{round_to(seconds, 1)} s of audio"
  end

  defp round_to(number, digits), do: :erlang.float_to_binary(number * 1.0, decimals: digits)

  # For people only: a line that is erased when the work is done.
  defp show(options) do
    if Terminal.terminal?(2) and not Keyword.get(options, :quiet, false),
      do: &Terminal.show/1,
      else: fn _line -> :ok end
  end

  @spec fail(String.t()) :: no_return
  defp fail(message), do: Mix.raise(message)
end
