defmodule Chatterbex.Installer do
  @moduledoc false
  # What `mix chatterbex.install` says and checks, with Igniter and without.

  alias Chatterbex.CommandLine

  @switches [model: :string]
  @aliases [m: :model]

  @spec switches() :: keyword
  def switches, do: @switches

  @spec aliases() :: keyword
  def aliases, do: @aliases

  @doc """
  The model of this name that speaks; without a name, the built-in voice.
  """
  @spec model(String.t() | nil) :: {:ok, atom} | {:error, String.t()}
  def model(name) do
    speaking = for %{name: model, speaks: true} <- Chatterbex.models(), do: model

    case Enum.find(speaking, &(to_string(&1) == (name || "hibari"))) do
      nil ->
        {:error,
         "no model that speaks is named #{name}. There are #{Enum.map_join(speaking, ", ", &inspect/1)}."}

      model ->
        {:ok, model}
    end
  end

  @doc """
  The commands that are left when the application has a server.
  """
  @spec next(module, atom) :: String.t()
  def next(server, model) do
    setup =
      if model == :hibari, do: "mix chatterbex.setup", else: "mix chatterbex.setup --auto --models #{model}"

    """
    Set up Python, and hear that it works:

        #{setup}
        mix chatterbex.say "Hello, world!" --model #{model}

    Then, in your application:

        {:ok, audio} = Chatterbex.generate(#{inspect(server)}, "Hello, world!")\
    """
  end

  @doc """
  Prints what to add by hand.
  """
  @spec run([String.t()], module) :: :ok
  def run(arguments, task) do
    CommandLine.run(arguments, task, [strict: @switches, aliases: @aliases], fn options ->
      case model(options[:model]) do
        {:ok, model} -> Mix.shell().info(by_hand(Mix.Project.config()[:app], model))
        {:error, message} -> Mix.raise(message)
      end
    end)
  end

  defp by_hand(application, model) do
    server = Module.concat(Macro.camelize(to_string(application)), "Speech")

    """
    Igniter is not installed, so nothing was changed. Add a server to the children of your supervisor, in
    lib/#{application}/application.ex:

        {Chatterbex, name: #{inspect(server)}, model: #{inspect(model)}}

    and the stand-in for your tests to config/test.exs:

        config :chatterbex, testing: true

    #{next(server, model)}
    """
  end
end
