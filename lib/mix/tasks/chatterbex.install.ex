moduledoc = """
Adds Chatterbex to your application.

    $ mix igniter.install chatterbex
    $ mix igniter.install chatterbex --model turbo

It adds a server under your supervisor, named after your application, and turns on the stand-in for tests in
`config/test.exs`. Then it prints the commands that set up Python. You see all changes before they are made.

It needs [Igniter](https://hexdocs.pm/igniter). Without it, `mix chatterbex.install` prints what to add by hand.

## Options

  * `-m`, `--model NAME` - the model of the server (default `hibari`, the built-in voice)
"""

if Code.ensure_loaded?(Igniter) do
  defmodule Mix.Tasks.Chatterbex.Install do
    @shortdoc "Adds Chatterbex to your application"
    @moduledoc moduledoc

    use Igniter.Mix.Task

    alias Chatterbex.Installer
    alias Igniter.Project

    @impl Igniter.Mix.Task
    def info(_arguments, _composing_task) do
      %Igniter.Mix.Task.Info{
        group: :chatterbex,
        schema: Installer.switches(),
        aliases: Installer.aliases(),
        example: "mix igniter.install chatterbex --model turbo"
      }
    end

    @impl Igniter.Mix.Task
    def igniter(igniter) do
      case Installer.model(igniter.args.options[:model]) do
        {:ok, model} ->
          server = Project.Module.module_name(igniter, "Speech")

          igniter
          |> Project.Application.add_new_child({Chatterbex, [name: server, model: model]})
          |> Project.Config.configure_new("test.exs", :chatterbex, [:testing], true)
          |> Igniter.add_notice(Installer.next(server, model))

        {:error, message} ->
          Igniter.add_issue(igniter, message)
      end
    end
  end
else
  defmodule Mix.Tasks.Chatterbex.Install do
    @shortdoc "Adds Chatterbex to your application"
    @moduledoc moduledoc

    use Mix.Task

    @impl Mix.Task
    def run(arguments), do: Chatterbex.Installer.run(arguments, __MODULE__)
  end
end
