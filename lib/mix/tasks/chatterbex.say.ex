defmodule Mix.Tasks.Chatterbex.Say do
  @shortdoc "Speaks a text, aloud or to a WAV file"

  @moduledoc """
  Speaks a text, aloud or to a WAV file.

      $ mix chatterbex.say "Hello, world!"
      $ mix chatterbex.say "Hello, world!" -o hello.wav
      $ mix chatterbex.say -f article.txt -o article.wav
      $ echo "Hello, world!" | mix chatterbex.say -o hello.wav

  The text is the arguments, or the content of `--file`, or the standard input. Without `--output` it is played
  with what the system has: `afplay` on macOS; `pw-play`, `paplay` or `aplay` on Linux.

  ## Options

    * `-o`, `--output FILE` - write a WAV file instead of playing
    * `-f`, `--file FILE` - read the text from a file
    * `-m`, `--model NAME` - the model (default `hibari`, the built-in voice)
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `auto`)
    * `-v`, `--voice NAME` - the voice (default: the model's own)
    * `--speed NUMBER` - the pace, from 0.5 to 2.0
    * `--seed NUMBER` - makes the same text give the same audio
    * `--timeout SECONDS` - how long speaking may take (default 600)
    * `--home DIR` - the folder that `mix chatterbex.setup --path` was given
    * `-q`, `--quiet` - say nothing but errors

  It reports on standard error, and ends with a status that is not 0 if anything fails.
  """

  use Mix.Task

  alias Chatterbex.{Audio, Error, Options, Terminal}

  @switches [
    output: :string,
    file: :string,
    model: :string,
    device: :string,
    voice: :string,
    speed: :float,
    seed: :integer,
    timeout: :integer,
    home: :string,
    quiet: :boolean,
    help: :boolean
  ]

  @aliases [o: :output, f: :file, m: :model, d: :device, v: :voice, q: :quiet, h: :help]

  @players [
    {"afplay", []},
    {"pw-play", []},
    {"paplay", []},
    {"aplay", ["-q"]},
    {"play", ["-q"]}
  ]

  @impl true
  def run(arguments) do
    {options, words, invalid} = OptionParser.parse(arguments, strict: @switches, aliases: @aliases)

    cond do
      invalid != [] -> fail(invalid_switch(hd(invalid)))
      options[:help] -> Mix.Task.run("help", ["chatterbex.say"])
      true -> say(words, options)
    end
  end

  defp say(words, options) do
    Mix.Task.run("app.start")
    Logger.configure(level: :none)

    with {:ok, text} <- text(words, options),
         {:ok, sink} <- sink(options[:output]),
         {:ok, server} <- Chatterbex.start_link(Keyword.take(options, [:model, :device, :home])),
         :ok <- progress(options, "loading the model", fn -> Chatterbex.await_ready(server) end),
         {:ok, audio} <-
           progress(options, "speaking", fn -> Chatterbex.generate(server, text, request(options)) end),
         :ok <- deliver(audio, sink) do
      report(audio, sink, options)
    else
      {:error, %Error{message: message}} -> fail(message)
      {:error, message} -> fail(message)
    end
  end

  defp request(options) do
    options
    |> Keyword.take([:voice, :speed, :seed])
    |> Keyword.put(:timeout, Keyword.get(options, :timeout, 600) * 1000)
  end

  defp text([], options) do
    case options[:file] do
      nil -> standard_input()
      path -> read(path)
    end
  end

  defp text(words, options) do
    if options[:file],
      do: {:error, "give the text either as arguments or with --file, not both"},
      else: {:ok, Enum.join(words, " ")}
  end

  defp read(path) do
    with {:error, posix} <- File.read(path) do
      {:error, "cannot read #{path}: #{:file.format_error(posix)} (#{posix})"}
    end
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

  defp sink(nil) do
    case Enum.find(@players, fn {player, _arguments} -> System.find_executable(player) end) do
      nil ->
        names = Enum.map_join(@players, ", ", &elem(&1, 0))
        {:error, "no audio player found (looked for #{names}). Write a file instead, with -o hello.wav"}

      player ->
        {:ok, {:player, player}}
    end
  end

  defp sink(path), do: {:ok, {:file, path}}

  defp deliver(audio, {:file, path}), do: Audio.write(audio, path)

  defp deliver(audio, {:player, {player, arguments}}) do
    path = Path.join(System.tmp_dir!(), "chatterbex-#{System.pid()}.wav")

    try do
      with :ok <- Audio.write(audio, path) do
        case System.cmd(player, arguments ++ [path], stderr_to_stdout: true) do
          {_output, 0} -> :ok
          {output, status} -> {:error, "#{player} failed (status #{status}): #{String.trim(output)}"}
        end
      end
    after
      File.rm(path)
    end
  end

  defp report(audio, sink, options) do
    unless options[:quiet] do
      seconds = Audio.duration(audio)
      IO.puts(:stderr, "#{verb(sink)}: #{round_to(seconds, 2)} s of audio#{rtf(audio, seconds)}")
    end
  end

  defp verb({:file, path}), do: "wrote #{path}"
  defp verb({:player, {player, _arguments}}), do: "played with #{player}"

  defp rtf(%{metadata: %{generation_ms: ms}}, seconds) when seconds > 0,
    do: ", real-time factor #{round_to(ms / 1000 / seconds, 3)}"

  defp rtf(_audio, _seconds), do: ""

  defp round_to(number, digits), do: :erlang.float_to_binary(number * 1.0, decimals: digits)

  # For people only: a line that is wiped away when the work is done.
  defp progress(options, what, work) do
    show? = Terminal.terminal?(2) and not Keyword.get(options, :quiet, false)
    if show?, do: Terminal.show("#{what} ...")
    result = work.()
    if show?, do: Terminal.show("")
    result
  end

  defp invalid_switch({switch, nil}) do
    known = for {name, _type} <- @switches, do: "--" <> (name |> Atom.to_string() |> String.replace("_", "-"))
    "unknown option #{switch}.#{Options.did_you_mean(switch, known)} See `mix help chatterbex.say`."
  end

  defp invalid_switch({switch, value}),
    do: "option #{switch} does not take #{inspect(value)}. See `mix help chatterbex.say`."

  @spec fail(String.t()) :: no_return
  defp fail(message), do: Mix.raise(message)
end
