defmodule Mix.Tasks.Chatterbex.Voice do
  @shortdoc "Makes voices from recordings, and lists them"

  @moduledoc """
  Makes a voice from a recording, lists the voices of a folder, and shows what is in a saved voice.

      $ mix chatterbex.voice clone ann.wav -o ann.voice --name Ann --note "agreed on 3 May"
      $ mix chatterbex.voice list priv/voices
      $ mix chatterbex.voice info ann.voice

  ## clone RECORDING

    * `-o`, `--output FILE` - where to save it (default: next to the recording, with the extension `.voice`)
    * `-m`, `--model NAME` - the model to make it with (default `turbo`): `turbo` for turbo and nano, `english` for
      english, multilingual and conversion
    * `--name NAME` - the name of the voice (default: the name of the recording)
    * `--note TEXT` - a note to save with the voice: whose it is, what they agreed to, its licence
    * `--no-norm-loudness` - do not normalise the recording to -27 LUFS first (`turbo`, `nano`)
    * `--checkpoint DIR` - a folder with the model's files
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `cpu`)
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `-q`, `--quiet` - print errors only

  It warns you about what you could improve in the recording. Ask the person before you clone their voice.

  ## list [DIR]

  Lists the voices of a folder (default: `config :chatterbex, voices: DIR`), one a line: the name, and the family of a
  saved voice, or `recording`.

  ## info FILE

  Shows the data that is saved with a voice.

  The exit status is not 0 if anything fails.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, Configuration, Error, Options, Voice}

  @switches [
    output: :string,
    model: :string,
    name: :string,
    note: :string,
    norm_loudness: :boolean,
    checkpoint: :string,
    device: :string,
    home: :string,
    quiet: :boolean,
    help: :boolean
  ]

  # Long enough for a slow disk: loading the model takes most of the time.
  @timeout 600_000

  @aliases [o: :output, m: :model, d: :device, q: :quiet, h: :help]

  @impl true
  def run(arguments) do
    {options, words, invalid} = OptionParser.parse(arguments, strict: @switches, aliases: @aliases)

    case {invalid, options[:help], words} do
      {[switch | _], _help, _words} -> fail(CommandLine.invalid(switch, @switches, "chatterbex.voice"))
      {[], true, _words} -> Mix.Task.run("help", ["chatterbex.voice"])
      {[], _help, ["clone", recording]} -> clone(recording, options)
      {[], _help, ["list"]} -> list(nil)
      {[], _help, ["list", folder]} -> list(folder)
      {[], _help, ["info", path]} -> info(path)
      {[], _help, []} -> misused("nothing to do: give clone, list or info.")
      {[], _help, [command | _]} -> misused(unknown(command))
    end
  end

  defp unknown(command) when command in ["clone", "info"], do: "#{command} takes one file."
  defp unknown("list"), do: "list takes one folder, or none."

  defp unknown(command) do
    commands = ["clone", "list", "info"]

    "there is no command #{inspect(command)}.#{Options.did_you_mean(command, commands)} Give clone, list or info."
  end

  @spec misused(String.t()) :: no_return
  defp misused(message), do: fail("#{message} See `mix help chatterbex.voice`.")

  defp clone(recording, options) do
    CommandLine.start()
    output = options[:output] || Path.rootname(recording) <> ".voice"
    name = options[:name] || recording |> Path.basename() |> Path.rootname()

    server =
      [model: "turbo", device: "cpu"]
      |> Keyword.merge(Keyword.take(options, [:model, :device, :checkpoint, :home]))

    request = [name: name, timeout: @timeout] ++ Keyword.take(options, [:note, :norm_loudness])

    # The recording is checked while the model loads.
    with {:ok, server} <- Chatterbex.start_link(server),
         {:ok, voice} <- Voice.clone(recording, [server: server] ++ request),
         :ok <- Voice.save(voice, output) do
      unless options[:quiet], do: report(voice, output)
    else
      {:error, %Error{message: message}} -> fail(message)
    end
  end

  defp report(voice, output) do
    IO.puts(:stderr, "wrote #{output}: #{inspect(voice)}")
    for warning <- voice.metadata.warnings, do: IO.puts(:stderr, "warning: #{warning}")
  end

  defp list(folder) do
    CommandLine.start()

    case Voice.list(folder: folder || configured()) do
      {:ok, []} -> IO.puts(:stderr, "no voices")
      {:ok, voices} -> for voice <- voices, do: IO.puts("#{voice.name}\t#{voice.family || voice.kind}")
      {:error, error} -> fail(error.message)
    end
  end

  defp configured do
    Configuration.get(:voices) ||
      fail(~s(no folder of voices is configured: give one, or set config :chatterbex, voices: "priv/voices"))
  end

  defp info(path) do
    CommandLine.start()

    case Voice.load(path) do
      {:ok, voice} -> describe(voice)
      {:error, error} -> fail(error.message)
    end
  end

  defp describe(voice) do
    {warnings, figures} = Map.pop(voice.metadata, :warnings, [])
    lines = [name: voice.name, family: voice.family] ++ Enum.sort(figures)
    for {label, value} <- lines, not is_nil(value), do: IO.puts("#{label}: #{value}")
    for warning <- warnings, do: IO.puts("warning: #{warning}")
  end

  @spec fail(String.t()) :: no_return
  defp fail(message), do: Mix.raise(message)
end
