defmodule Mix.Tasks.Chatterbex.Setup do
  @shortdoc "Sets up Python for Chatterbex"

  @moduledoc """
  Sets up Python for Chatterbex: finds one that can be embedded, creates an environment for it in the user's
  cache folder, installs what the voices need, and checks that it works.

      mix chatterbex.setup
      mix chatterbex.setup --mps
      mix chatterbex.setup --auto --models turbo,nano
      mix chatterbex.setup --cpu --models multilingual --languages ja,zh --path /srv/speech

  Without flags it installs the built-in voice. You can run it again at any time. With nothing to do it ends at
  once and needs no network. After an interruption it continues where it stopped. Other flags add to the environment.

  ## Options

    * `--mps`, `--cuda`, `--cpu`, `--auto` - also installs PyTorch, which the Chatterbox models need, for Apple
      Silicon, for an NVIDIA GPU, for the CPU, or for the best device of this machine. If the machine does not have
      the device, PyTorch is set up for the CPU, and a line says so. At the end the setup tests PyTorch: a matrix
      product, a Fourier transform, a long convolution and attention must agree on the device and on the CPU.
    * `--models NAMES` - also fetches the files of these models: `english`, `multilingual`, `turbo`, `nano`,
      `conversion`. Implies `--auto`.
    * `--languages CODES` - also installs the extra packages of these languages: `ja` and `zh` have some.
      Implies `--auto`.
    * `--torch VERSION` - installs another version of PyTorch than the locked one, such as `2.12.1`. It comes from
      the index, its hashes are not checked, and it is untested. To go back, give the locked version.
    * `--path DIR` - the folder for the environment. The default is `$CHATTERBEX_HOME`, then
      `config :chatterbex, home: DIR`, then `chatterbex` in the user's cache folder (`$XDG_CACHE_HOME`,
      `~/.cache`, or `~/Library/Caches` on macOS).
    * `--python PYTHON` - the Python to use: a path, a name on PATH, or a version such as `3.11`. It must be 3.10
      to 3.14 and have a shared library. The default is the first that fits: uv's, the system's, pyenv's, or else
      one that uv downloads.
    * `--force` - build everything again.
    * `--quiet` - print errors only.
    * `--json` - print a JSON object on a line of its own for each step, and at the end one for the result, to stdout.
    * `--help` - print this.

  Each step is one line on standard error, with its result and the time that it took; the last one is the total. On a
  terminal you also see how far a step is. The exit code is 0 only if everything is installed.

  With `--json` each object has an `event`: `"step"` (`step`, its name; `title`; `status`, `"done"` or `"failed"`; `note`,
  its result; `seconds`), `"line"` (`text`, a remark) or, the last one, `"result"`: `ok`, and what `Chatterbex.Setup.run/1`
  returns, or the error's `reason` and `message`.

  ## Behind a mirror or a proxy

  The setup respects the settings of pip (`PIP_INDEX_URL`, pip.conf) and uv (`UV_DEFAULT_INDEX`, uv.toml), as well
  as `HTTPS_PROXY`, `SSL_CERT_FILE` and `UV_PYTHON_DOWNLOADS=never`.

  ## Sizes

  On Linux the package index only has PyTorch with NVIDIA's libraries. For the CPU the setup installs a smaller build
  (`2.15.0+cpu`) if the index has one. PyTorch's own index does. To make uv look there, run

      UV_TORCH_BACKEND=cpu mix chatterbex.setup --cpu

  These builds are not in the lock, so their files are not checked against hashes.

  | | to download | on disk |
  |---|---|---|
  | the built-in voice | 0.1 GB | 0.2 GB |
  | with PyTorch, Linux on x86_64 | 2.8 GB | 4.6 GB |
  | with PyTorch, Linux on ARM | 3.0 GB | 4.8 GB |
  | with PyTorch, macOS on Apple Silicon | 0.2 GB | 0.8 GB |

  ## CUDA

  With `--cuda`, and with `--auto` if there is an NVIDIA driver, the setup chooses the build of PyTorch that the driver and
  the cards can run, and says why: see [the guide](cuda-servers.md#requirements). `--torch VERSION` skips that choice. The
  test at the end shows whether that version works.

  ## Without Mix

  In a release: `bin/my_app eval 'Chatterbex.Setup.run!()'`. See `Chatterbex.Setup`.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, JSON}

  @switches [
    mps: :boolean,
    cuda: :boolean,
    cpu: :boolean,
    auto: :boolean,
    models: :string,
    languages: :string,
    torch: :string,
    path: :string,
    python: :string,
    force: :boolean,
    quiet: :boolean,
    json: :boolean,
    help: :boolean
  ]

  @needs [
    path: "a folder",
    python: "a path, a name or a version",
    models: "names, as in --models turbo,nano",
    languages: "codes, as in --languages ja,zh"
  ]

  @impl true
  def run(arguments), do: CommandLine.run(arguments, __MODULE__, [strict: @switches], &set_up/1)

  defp set_up(given) do
    options = options(given)
    # The configuration of the application may name the home.
    Mix.Task.run("app.config")

    case {Chatterbex.Setup.provision(options), given[:json]} do
      {{:ok, summary}, true} ->
        summary |> Map.merge(%{event: :result, ok: true}) |> print()

      {{:ok, %{changed: true}}, _json} ->
        given[:quiet] || IO.puts(:stderr, ~s(Try it: mix chatterbex.say "Hello!"))

      {{:ok, _nothing_to_do}, _json} ->
        :ok

      {{:error, error}, true} ->
        failed(error)

      {{:error, error}, _json} ->
        Mix.raise(error.message)
    end
  end

  @doc false
  @spec options(keyword) :: keyword
  def options(given) do
    devices = Enum.filter([:mps, :cuda, :cpu, :auto], &(given[&1] == true))

    if length(devices) > 1,
      do: Mix.raise("one device at a time, got #{Enum.map_join(devices, " and ", &"--#{&1}")}.")

    for {name, what} <- @needs,
        given[name] && words(given[name]) == [],
        do: Mix.raise("--#{name} needs #{what}.")

    lists = for name <- [:models, :languages], given[name], do: {name, words(given[name])}
    home = if given[:path], do: [home: given[:path]], else: []
    events = if given[:json], do: [on_event: &event/1], else: []

    Keyword.take(given, [:python, :torch, :force, :quiet]) ++
      lists ++ home ++ events ++ Enum.map(devices, &{:device, &1})
  end

  defp words(text), do: String.split(text, [",", " "], trim: true)

  defp event({:line, line}), do: print(%{event: :line, text: line})
  defp event({:step, step}), do: step |> Map.put(:event, :step) |> print()
  defp event(_between), do: :ok

  @spec failed(Chatterbex.Error.t()) :: no_return
  defp failed(error) do
    print(%{event: :result, ok: false, reason: error.reason, message: error.message})
    exit({:shutdown, 1})
  end

  defp print(value), do: value |> JSON.encode() |> String.replace(~r/\n\s*/, "") |> IO.puts()
end
