defmodule Mix.Tasks.Chatterbex.Setup do
  @shortdoc "Sets up Python for Chatterbex"

  @moduledoc """
  Sets up Python for Chatterbex: finds one that can be embedded, makes an environment for it in the user's
  cache folder, installs what the voices need, and proves that it loads.

      mix chatterbex.setup [--mps | --cuda | --cpu | --auto] [--path DIR] [--python PYTHON] [--force] [--quiet]

  Run it again whenever you like: with nothing to do it ends at once and needs no network; stopped half-way, it
  goes on where it was.

  ## Options

    * `--mps`, `--cuda`, `--cpu`, `--auto` - also PyTorch, which the Chatterbox models need. Without one of
      these only the built-in voice is set up.
    * `--path DIR` - the folder to hold the environment. The default is `$CHATTERBEX_HOME`, then
      `config :chatterbex, home: DIR`, then `chatterbex` in the user's cache folder (`$XDG_CACHE_HOME`,
      `~/.cache`, or `~/Library/Caches` on macOS).
    * `--python PYTHON` - the Python to use: a path, a name on PATH, or a version as `3.11`. It must be 3.10
      to 3.12 and have a shared library. The default is the first that fits: uv's, the system's, pyenv's, and
      where none does, one that uv downloads.
    * `--force` - build everything again.
    * `--quiet` - print nothing unless it fails.
    * `--help` - print this.

  The steps are printed to stderr. The exit code is 0 only where everything is there.

  ## Behind a mirror or a proxy

  The settings of pip (`PIP_INDEX_URL`, pip.conf) and uv (`UV_DEFAULT_INDEX`, uv.toml) are respected, and so
  are `HTTPS_PROXY`, `SSL_CERT_FILE` and `UV_PYTHON_DOWNLOADS=never`.

  ## Without Mix

  In a release: `bin/my_app eval 'Chatterbex.Setup.run!()'`. See `Chatterbex.Setup`.
  """

  use Mix.Task

  @switches [
    mps: :boolean,
    cuda: :boolean,
    cpu: :boolean,
    auto: :boolean,
    path: :string,
    python: :string,
    force: :boolean,
    quiet: :boolean,
    help: :boolean
  ]

  @devices [:mps, :cuda, :cpu, :auto]

  @impl true
  def run(arguments) do
    case options(arguments) do
      :help -> IO.puts(@moduledoc)
      {:ok, options} -> set_up(options)
      {:error, message} -> Mix.raise(message <> "\nSee mix help chatterbex.setup")
    end
  end

  @doc false
  @spec options([String.t()]) :: {:ok, keyword} | :help | {:error, String.t()}
  def options(arguments) do
    {given, rest, invalid} = OptionParser.parse(arguments, strict: @switches)
    devices = Enum.filter(@devices, &(given[&1] == true))

    cond do
      given[:help] ->
        :help

      invalid != [] ->
        {:error, invalid(hd(invalid))}

      rest != [] ->
        {:error, "unexpected argument #{inspect(hd(rest))}: only flags are taken."}

      length(devices) > 1 ->
        {:error, "one device at a time, got #{Enum.map_join(devices, " and ", &"--#{&1}")}."}

      given[:path] == "" ->
        {:error, "--path needs a folder."}

      given[:python] == "" ->
        {:error, "--python needs a path, a name or a version."}

      true ->
        {:ok, setup_options(given, devices)}
    end
  end

  defp setup_options(given, devices) do
    given
    |> Keyword.take([:python, :force, :quiet])
    |> Keyword.merge(if(given[:path], do: [home: given[:path]], else: []))
    |> Keyword.merge(Enum.map(devices, &{:device, &1}))
  end

  defp set_up(options) do
    # The configuration of the application may name the home.
    Mix.Task.run("app.config")

    case Chatterbex.Setup.provision(options) do
      {:ok, summary} -> unless options[:quiet], do: next(summary)
      {:error, error} -> Mix.raise(error.message)
    end
  end

  defp next(%{changed: false}), do: :ok
  defp next(_summary), do: IO.puts(:stderr, ~s(Try it: mix chatterbex.say "Hello, world!"))

  defp invalid({flag, value}) do
    flags = Enum.map(Keyword.keys(@switches), &"--#{&1}")

    cond do
      flag in flags and is_nil(value) -> "#{flag} needs a value."
      flag in flags -> "#{flag} takes no value, got #{inspect(value)}."
      true -> "unknown option #{flag}.#{did_you_mean(flag, flags)} The options are #{Enum.join(flags, ", ")}."
    end
  end

  defp did_you_mean(flag, flags) do
    nearest = Enum.max_by(flags, &String.jaro_distance(&1, flag))
    if String.jaro_distance(nearest, flag) > 0.8, do: " Did you mean #{nearest}?", else: ""
  end
end
