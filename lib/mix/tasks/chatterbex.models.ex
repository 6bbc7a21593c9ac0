defmodule Mix.Tasks.Chatterbex.Models do
  @shortdoc "Fetches, checks and removes the files of the Chatterbox models"

  @moduledoc """
  Fetches, checks and removes the files of the Chatterbox models.

      mix chatterbex.models                      lists all models, and which are on this machine
      mix chatterbex.models download MODEL...    fetches missing files
      mix chatterbex.models verify [MODEL...]    checks the checksums of the files on this machine
      mix chatterbex.models remove MODEL...      removes a model's files, except those that another model needs
      mix chatterbex.models path [MODEL]         prints the folder with a model's files, or the cache

  A fine-tune belongs to the model that it was made from:

      mix chatterbex.models download english --repo someone/chatterbox-german

  The models are `english`, `multilingual`, `turbo`, `nano` and `conversion`. Their files are in the Hugging Face
  cache, which other programs share.

  ## Options

    * `--version VERSION` - `v3` (the default) or `v2`, of `multilingual`
    * `--language-pack PACK` - of `multilingual`: `zh-cmn`, `es-mx-latam`, `pt-br`, `es-es`, `pt-pt` or `hi`
    * `--flow meanflow` - use the distilled flow of `turbo` (for `english`, `multilingual` and `conversion`)
    * `--repo OWNER/NAME` - the repository of a fine-tune of the model
    * `--t3 FILE` - a fine-tuned T3: its path or, with `--repo`, its name in the repository
    * `--revision REVISION` - a branch, a tag or a commit (default `main`)
    * `--force` - for `download`: ask the hub even if nothing is missing, and fetch files that are newer or damaged
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`
    * `-q`, `--quiet` - print errors only
    * `--help` - print this

  `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` have their usual meaning: see
  `Chatterbex.ModelFiles`.

  Before it fetches, it shows how much it has to fetch. Progress goes to standard error: on a terminal one bar for the whole
  download, with its speed and the time left, otherwise a line for each file. You can stop a download with Ctrl-C: the next
  one continues there. The exit code is 0 only if everything succeeded.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, DownloadBar, ModelFiles, Options, Terminal}

  @switches [
    version: :string,
    language_pack: :string,
    flow: :string,
    repo: :string,
    t3: :string,
    revision: :string,
    force: :boolean,
    home: :string,
    quiet: :boolean,
    help: :boolean
  ]

  @aliases [q: :quiet, h: :help]

  @commands ~w(list download verify remove path)

  @impl true
  def run(arguments) do
    {options, words, invalid} = OptionParser.parse(arguments, strict: @switches, aliases: @aliases)

    cond do
      invalid != [] -> fail(CommandLine.invalid(hd(invalid), @switches, "chatterbex.models"))
      options[:help] -> IO.puts(@moduledoc)
      true -> command(words, options)
    end
  end

  defp command([], options), do: command(["list"], options)

  defp command([command | models], options) when command in @commands do
    # The configuration of the application may name the home.
    Mix.Task.run("app.config")
    act(command, models, options)
  end

  defp command([other | _models], _options) do
    hint = Options.did_you_mean(other, @commands)
    fail("unknown command #{inspect(other)}.#{hint} The commands are #{Enum.join(@commands, ", ")}.")
  end

  defp act("list", [], options) do
    rows = Enum.map(ModelFiles.list(home(options)), &row/1)
    width = rows |> Enum.map(&String.length(elem(&1, 0))) |> Enum.max()
    for {name, state} <- rows, do: IO.puts("#{String.pad_trailing(name, width)}  #{state}")
    :ok
  end

  defp act("list", [model | _models], _options),
    do: fail("list takes no model, got #{inspect(model)}: it lists all.")

  defp act("path", [], _options), do: IO.puts(ModelFiles.cache_folder())

  defp act("path", models, options),
    do: each(models, &ModelFiles.locate(&1, chosen(options)), fn _model, folder -> IO.puts(folder) end)

  defp act("verify", [], options) do
    here = for %{folder: folder} = model when is_binary(folder) <- ModelFiles.list(home(options)), do: model
    if here == [], do: say(options, "no model is here.")

    for model <- here do
      verify(model.model, Keyword.merge(options, named(model)), name(model))
    end

    :ok
  end

  defp act("verify", models, options), do: Enum.each(models, &verify(&1, options, &1))

  defp act(command, [], _options), do: fail("which model? As in: mix chatterbex.models #{command} turbo")

  defp act("remove", models, options) do
    each(models, &ModelFiles.remove(&1, Keyword.delete(chosen(options), :revision)), fn
      model, %{files: []} -> say(options, "#{model}: nothing to remove.")
      model, %{bytes: bytes} -> say(options, "#{model}: removed, #{Terminal.bytes(bytes)} are free again.")
    end)
  end

  defp act("download", models, options) do
    more = Keyword.take(options, [:force])

    each(
      models,
      fn model ->
        on_progress = unless options[:quiet], do: on_progress(model, Terminal.terminal?(2))
        result = ModelFiles.download(model, chosen(options) ++ more ++ [on_progress: on_progress])
        if on_progress, do: on_progress.(:ended)
        result
      end,
      fn model, folder -> say(options, "#{model}: all files are in #{folder}") end
    )
  end

  defp verify(model, options, name) do
    case ModelFiles.verify(model, chosen(options)) do
      {:ok, files} ->
        bytes = files |> Enum.map(& &1.bytes) |> Enum.sum()
        say(options, "#{name}: #{length(files)} files of #{Terminal.bytes(bytes)} are right.")

      {:error, error} ->
        fail(error.message)
    end
  end

  defp each(models, work, done) do
    Enum.each(models, fn model ->
      case work.(model) do
        {:ok, result} -> done.(model, result)
        {:error, error} -> fail(error.message)
      end
    end)
  end

  defp row(%{folder: folder} = model) when is_binary(folder),
    do: {name(model), "here, #{Terminal.bytes(model.bytes)}"}

  defp row(%{files: []} = model), do: {name(model), "not here"}

  # The files may belong to another model.
  defp row(%{files: files, missing: missing} = model),
    do: {name(model), "#{length(files)} of #{length(files) + length(missing)} files are here"}

  defp name(model), do: Enum.join([model.model | Enum.flat_map(named(model), &flag/1)], " ")

  defp named(%{version: :v2}), do: [version: "v2"]
  defp named(%{language_pack: pack}) when is_binary(pack), do: [language_pack: pack]
  defp named(_model), do: []

  defp flag({:version, version}), do: ["--version", version]
  defp flag({:language_pack, pack}), do: ["--language-pack", pack]

  defp chosen(options),
    do: Keyword.take(options, [:version, :language_pack, :flow, :repo, :t3, :revision, :home])

  defp home(options), do: Keyword.take(options, [:home])

  # The sizes first. Then, on a terminal, one bar, otherwise a line for each file and each wait.
  defp on_progress(model, terminal?) do
    show = if terminal?, do: bar(model), else: &lines(model, &1)
    key = {__MODULE__, make_ref()}

    fn
      :ended ->
        if terminal?, do: Terminal.show("")

      progress ->
        unless Process.put(key, :begun), do: IO.puts(:stderr, sizes(model, progress))
        show.(progress)
    end
  end

  defp sizes(model, %{bytes: bytes, total: total}),
    do: "#{model}: #{Terminal.bytes(total - bytes)} to fetch, #{Terminal.bytes(total)} in all"

  defp bar(model), do: DownloadBar.on_progress(&Terminal.show(String.slice("#{model}: #{&1}", 0, 79)))

  defp lines(model, %{status: :done} = progress),
    do: IO.puts(:stderr, "#{model}: #{progress.file}, #{Terminal.bytes(progress.file_total)}")

  defp lines(model, %{status: :waiting, message: message} = progress) do
    said = {model, progress.file, message}
    if Process.put({__MODULE__, :waiting}, said) != said, do: IO.puts(:stderr, "#{model}: #{message}")
  end

  defp lines(_model, _progress), do: :ok

  defp say(options, text), do: unless(options[:quiet], do: IO.puts(:stderr, text))

  @spec fail(String.t()) :: no_return
  defp fail(message), do: Mix.raise(message)
end
