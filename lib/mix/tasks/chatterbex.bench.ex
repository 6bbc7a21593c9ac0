defmodule Mix.Tasks.Chatterbex.Bench do
  @shortdoc "Measures a model on this machine, on the CPU and on its device"

  @moduledoc """
  Measures how fast a model speaks on this machine: the same sentences on the CPU and on the device.

      $ mix chatterbex.bench
      $ mix chatterbex.bench --model turbo
      $ mix chatterbex.bench --model turbo --device mps --rounds 5 --json

  It prints how long loading took, the real-time factor (seconds of work per second of audio), the speech tokens per
  second (25 make a second of audio), the time to the first audio of a stream, and which of the two is faster. If there
  is no device, or the model does not use one, it measures only the CPU and says why.

  ## Options

    * `-m`, `--model NAME` - the model (default `hibari`, the built-in voice)
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `auto`)
    * `--precision NAME` - `float32`, `bfloat16`, `int8` or `auto` (default `float32`)
    * `--checkpoint DIR` - a folder with the model's files
    * `--download` - fetch missing files of the model
    * `--rounds NUMBER` - how many times to measure each sentence (default 3)
    * `--max-tokens NUMBER` - speech tokens after which a sentence is cut (all Chatterbox models)
    * `--threads NUMBER` - threads for the model's arithmetic
    * `--timeout SECONDS` - how long a sentence may take (default 600)
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `--json` - print one JSON object: see `t:Chatterbex.Bench.report/0`
    * `--help` - print this

  It reports its progress on standard error. The exit status is not 0 if anything fails.
  """

  use Mix.Task

  alias Chatterbex.{Bench, CommandLine, JSON, Terminal}

  @switches [
    model: :string,
    device: :string,
    precision: :string,
    checkpoint: :string,
    download: :boolean,
    rounds: :integer,
    max_tokens: :integer,
    threads: :integer,
    timeout: :integer,
    home: :string,
    json: :boolean,
    help: :boolean
  ]

  @aliases [m: :model, d: :device, h: :help]

  @impl true
  def run(arguments),
    do: CommandLine.run(arguments, __MODULE__, [strict: @switches, aliases: @aliases], &measure/1)

  defp measure(options) do
    CommandLine.start()
    {json, options} = Keyword.pop(options, :json, false)
    show? = Terminal.terminal?(2)

    outcome =
      options
      |> Keyword.replace_lazy(:timeout, &(&1 * 1000))
      |> Keyword.replace_lazy(:precision, &precision/1)
      |> Keyword.put(:progress, fn step -> if show?, do: Terminal.show(step <> " ...") end)
      |> Bench.run()

    if show?, do: Terminal.show("")

    case outcome do
      {:ok, report} -> IO.puts(if json, do: JSON.encode(report), else: Bench.text(report))
      {:error, error} -> Mix.raise(error.message)
    end
  end

  defp precision(name),
    do: Enum.find([:float32, :bfloat16, :int8, :auto], name, &(Atom.to_string(&1) == name))
end
