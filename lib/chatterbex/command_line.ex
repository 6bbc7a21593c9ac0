defmodule Chatterbex.CommandLine do
  @moduledoc false
  # Shared code of the Mix tasks.

  alias Chatterbex.Options

  @doc """
  Starts what a task needs to speak: this library with the project's configuration, and not the project itself.
  """
  @spec start() :: :ok
  def start do
    Mix.Task.run("app.config")

    case Application.ensure_all_started(:chatterbex) do
      {:ok, _started} -> Logger.configure(level: :none)
      {:error, {app, reason}} -> Mix.raise("#{app} does not start: #{Options.Schema.show(reason)}")
    end
  end

  @doc """
  Runs a task that takes options and nothing else: prints its help, says what is wrong, or calls a function with the options.
  """
  @spec run([String.t()], module, keyword, (keyword -> result)) :: result | :ok when result: var
  def run(arguments, module, parser, function) do
    {options, rest, invalid} = OptionParser.parse(arguments, parser)
    task = Mix.Task.task_name(module)

    cond do
      options[:help] -> IO.puts(Mix.Task.moduledoc(module))
      invalid != [] -> Mix.raise(invalid(hd(invalid), parser[:strict], task))
      rest != [] -> Mix.raise("unexpected argument #{inspect(hd(rest))}. See `mix help #{task}`.")
      true -> function.(options)
    end
  end

  @doc """
  The message for an option that `OptionParser` returned as invalid, for the task of this name.

      iex> Chatterbex.CommandLine.invalid({"--ouptut", nil}, [output: :string], "chatterbex.say")
      ~s(unknown option --ouptut. Did you mean "--output"? See `mix help chatterbex.say`.)

      iex> Chatterbex.CommandLine.invalid({"--output", nil}, [output: :string], "chatterbex.say")
      "--output needs a value."

      iex> Chatterbex.CommandLine.invalid({"--seed", "x"}, [seed: :integer], "chatterbex.say")
      ~s(--seed does not accept "x".)
  """
  @spec invalid({String.t(), String.t() | nil}, keyword, String.t()) :: String.t()
  def invalid({switch, nil}, switches, task) do
    known = for {name, _type} <- switches, do: "--" <> (name |> Atom.to_string() |> String.replace("_", "-"))

    if switch in known,
      do: "#{switch} needs a value.",
      else: "unknown option #{switch}.#{Options.did_you_mean(switch, known)} See `mix help #{task}`."
  end

  def invalid({switch, value}, _switches, _task), do: "#{switch} does not accept #{inspect(value)}."
end
