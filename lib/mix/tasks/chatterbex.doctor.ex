defmodule Mix.Tasks.Chatterbex.Doctor do
  @shortdoc "Checks what Chatterbex needs on this machine, and says what to do"

  @moduledoc """
  Checks everything that Chatterbex needs on this machine, and says how to fix what does not work.

      mix chatterbex.doctor [--path DIR] [--verify] [--json]

  Each line is one of

    * `ok`
    * `warning` - it works, but there is something to know
    * `FAILED` - it is set up but does not work
    * `not set up` - it is not installed, which is not a failure

  with the remedy after an arrow. The exit code is 0 only where nothing failed.

  ## Options

    * `--path DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `--verify` - also compare the checksums of the models' files, which are gigabytes
    * `--json` - print one JSON object: `ok`, `home` and `checks`, each with `section`, `name`, `status`
      (`ok`, `warning`, `failed`, `not_set_up`), `message`, `remedy` and `details`
    * `--help` - print this

  It needs no network and changes nothing. In a release: `bin/my_app eval 'Chatterbex.Doctor.run!()'`.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, Doctor, JSON}

  @switches [path: :string, verify: :boolean, json: :boolean, help: :boolean]

  @impl true
  def run(arguments), do: CommandLine.run(arguments, __MODULE__, [strict: @switches], &examine/1)

  defp examine(options) do
    # The configuration of the application may name the home.
    Mix.Task.run("app.config")
    report = if options[:json], do: fn _check -> :ok end, else: &IO.puts(Doctor.line(&1))

    case Doctor.run(home: options[:path], verify: options[:verify] == true, report: report) do
      {:ok, report} -> conclude(report, options)
      {:error, error} -> Mix.raise(error.message)
    end
  end

  defp conclude(report, options) do
    IO.puts(if options[:json], do: JSON.encode(report), else: "\n" <> Doctor.summary(report))
    unless report.ok, do: exit({:shutdown, 1})
  end
end
