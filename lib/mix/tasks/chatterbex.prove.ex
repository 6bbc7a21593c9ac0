defmodule Mix.Tasks.Chatterbex.Prove do
  @shortdoc "Proves that a model speaks correctly on this machine's device"

  @moduledoc """
  Proves that a model speaks correctly on this machine. It speaks ten sentences on the CPU and on the device, compares
  them, and runs a speech recogniser on them.

      $ mix chatterbex.prove --install-recogniser
      $ mix chatterbex.prove --model turbo --device mps
      $ mix chatterbex.prove --model nano --checkpoint ~/models/nano --report nano.md

  It prints a table and writes a report, `chatterbex-prove-MODEL.md`, that you can attach to an issue. The report names
  the machine and the versions, but no user and no folder. `Chatterbex.Prove` describes the checks, and when they fail.

  It downloads nothing by itself. Fetch the model's files first: `mix chatterbex.models download turbo`.

  ## Options

    * `-m`, `--model NAME` - the model (default `hibari`, the built-in voice)
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `auto`)
    * `--checkpoint DIR` - a folder with the model's files
    * `--install-recogniser` - install pocketsphinx, which checks the words, if it is missing: 30 MB from the package
      index, in a separate environment next to that of the models
    * `--recogniser PYTHON` - a Python that has pocketsphinx
    * `--report FILE` - where to write the report
    * `--max-tokens NUMBER` - speech tokens after which a sentence is cut (all Chatterbox models)
    * `--threads NUMBER` - threads for the model's arithmetic
    * `--timeout SECONDS` - how long a sentence may take (default 600)
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `--help` - print this

  It reports its progress on standard error. The exit status is 0 only if no check failed.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, Files, Prove, Terminal}

  @switches [
    model: :string,
    device: :string,
    checkpoint: :string,
    install_recogniser: :boolean,
    recogniser: :string,
    report: :string,
    max_tokens: :integer,
    threads: :integer,
    timeout: :integer,
    home: :string,
    help: :boolean
  ]

  @aliases [m: :model, d: :device, h: :help]

  @impl true
  def run(arguments),
    do: CommandLine.run(arguments, __MODULE__, [strict: @switches, aliases: @aliases], &prove/1)

  defp prove(options) do
    Mix.Task.run("app.start")
    # The report has the warnings of the models.
    Logger.configure(level: :none)
    {path, options} = Keyword.pop(options, :report)
    check_folder(path)
    show? = Terminal.terminal?(2)

    outcome =
      options
      |> Keyword.replace_lazy(:timeout, &(&1 * 1000))
      |> Keyword.put(:progress, fn step -> if show?, do: Terminal.show(step <> " ...") end)
      |> Prove.run()

    if show?, do: Terminal.show("")

    with {:ok, report} <- outcome,
         path = path || "chatterbex-prove-#{report.model}.md",
         :ok <- Files.write(path, Prove.markdown(report)) do
      IO.puts(Prove.text(report) <> "The report is in #{path}.")
      unless report.passed, do: exit({:shutdown, 1})
    else
      {:error, error} -> Mix.raise(error.message)
    end
  end

  # Checked first, so that minutes of work are not lost.
  defp check_folder(path) do
    if path && not File.dir?(Path.dirname(path)),
      do: Mix.raise(Files.error("write", path, :enoent).message)
  end
end
