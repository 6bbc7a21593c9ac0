defmodule Chatterbex.Prove do
  @moduledoc """
  Proves a model on this machine. The model speaks ten sentences on the CPU and on the device, and the speech is checked.

      mix chatterbex.prove --model turbo --install-recogniser

  prints the findings and writes a report for an issue. It does not download the model: fetch its files first
  (`mix chatterbex.models download turbo`), or name their folder with `:checkpoint`.

  ## The checks

    * **device** - the requested device spoke every sentence, without falling back to the CPU. With `device: :auto` this is
      skipped if the machine has no device that the model could use.
    * **sound** - every sample is a finite number, and no sentence is silent.
    * **watermark** - every sentence has PerTh's watermark (`Chatterbex.Audio.watermarked?/1`). Skipped for models that have
      none, such as `:hibari`.
    * **agreement** - the device speaks the same as the CPU. Both use the same seeds, so tokens, and with them the
      samples, differ only by rounding. Two versions of a sentence are the same speech if their lengths differ by at most
      20 ms and their loudness by at most 0.5 LU, and if their envelopes (levels of 20 ms) have a correlation of at least
      0.98. If two tokens are almost equally likely, rounding may pick the other one, and the rest of the sentence then
      differs: at most 2 of 10 sentences may differ.
    * **words** - pocketsphinx, a speech recogniser, understands the speech. It may mishear at most 30 % of all words, and
      on the device at most 10 percentage points more than on the CPU. pocketsphinx mishears up to one word in ten of
      clear speech; for garbled speech or noise the figure is above 70 %. Skipped if the recogniser is not installed.

  The speed of each device is measured but not judged. The two servers run one after the other, so that only one model is
  in memory.
  """

  alias Chatterbex.{Audio, Configuration, Error, Model, Options, Python}
  alias Chatterbex.Prove.{Checks, Document, Recogniser, Run, Similarity, Words}

  # Everyday words, which the recogniser knows.
  @sentences [
    "The weather is nice today.",
    "Please open the window before you leave.",
    "He went to the store to buy some bread and milk.",
    "Can you tell me what time it is?",
    "She has been working at the hospital for many years.",
    "The children played in the park until dark.",
    "The president said that the economy is growing.",
    "My brother lives in a house near the river.",
    "The train will arrive in about ten minutes.",
    "This is one of the most important questions of our time."
  ]

  @typedoc """
  The findings.

    * `passed` - `true` if no check failed
    * `checks` - each with its name, a `status` of `:passed`, `:failed` or `:skipped`, and a message
    * `measured` - the figures of each device, the CPU first: `load_seconds`, `audio_seconds`, `work_seconds`, `rtf` (seconds
      of work per second of audio), `first_audio_seconds` of a stream, and `word_error_rate` (0.0 and above, `nil` if the
      recogniser did not run)
    * `sentences` - each with its `text`; `spoken`, the speech of each device (`seconds`, `loudness` in LUFS or `:silent`,
      `tokens`, `watermarked`, `heard`, `word_errors`); and `similarity`, which compares the two: the second's `seconds` and
      `loudness` (LU) minus the first's, the correlation of their `envelope`s, and their `difference` in dB (`nil` if they
      are `equal`, or of different lengths)
    * `versions` - the versions of the Python packages
  """
  @type report :: %{
          model: atom,
          passed: boolean,
          checks: [Checks.check()],
          measured: [map, ...],
          sentences: [map, ...],
          versions: map
        }

  @doc """
  Proves a model.

  ## Options

  #{Options.Schema.docs(:prove)}

  A failed check is not an error: see `passed` of the report. Errors are those of `Chatterbex.start_link/1` and
  `Chatterbex.generate/2`; `:not_supported` for a model that does not speak English; `:not_set_up` if the recogniser cannot
  be installed or does not run.

  ## Examples

      {:ok, %{passed: true}} = Chatterbex.Prove.run(model: :turbo, device: :mps)

      iex> {:error, error} = Chatterbex.Prove.run(model: :conversion)
      iex> error.message
      "the model :conversion does not speak English, and these sentences are English"
  """
  @spec run(keyword) :: {:ok, report} | {:error, Error.t()}
  def run(options \\ []) do
    with {:ok, valid} <- Options.validate(:prove, options),
         {:ok, model} <- model(options),
         tell = valid.progress || fn _told -> :ok end,
         {:ok, ears} <- ears(valid, tell),
         {:ok, found} <- speak(model, options, valid, tell),
         {:ok, found} <- watermarks(found, tell),
         {:ok, found} <- listen(found, ears, tell) do
      {:ok, report(model, found)}
    end
  end

  @doc """
  The report as text for a terminal.

  ## Examples

      {:ok, report} = Chatterbex.Prove.run(model: :turbo)
      IO.puts(Chatterbex.Prove.text(report))
  """
  @spec text(report) :: String.t()
  def text(report), do: Document.text(report)

  @doc """
  The report as Markdown, with the machine that it ran on. It names no user and no folder.

  ## Examples

      {:ok, report} = Chatterbex.Prove.run(model: :turbo)
      File.write!("turbo.md", Chatterbex.Prove.markdown(report))
  """
  @spec markdown(report) :: String.t()
  def markdown(report), do: Document.markdown(report)

  defp model(options) do
    name = Keyword.get(options, :model) || Configuration.get(:model, :hibari)

    with {:ok, model} <- Model.fetch(name) do
      if model.speaks and english?(model),
        do: {:ok, model},
        else:
          {:error,
           Error.new(
             :not_supported,
             "the model #{inspect(model.name)} does not speak English, and these sentences are English",
             %{model: model.name}
           )}
    end
  end

  # A model of the user's own may name no language.
  defp english?(model), do: model.languages == [] or "en" in model.languages

  # Before a model is loaded: it may be refused.
  defp ears(%{recogniser: program}, _tell) when program != nil, do: {:ok, program}

  defp ears(valid, tell) do
    home = Python.home(home: valid.home)

    case {Recogniser.find(home), valid.install_recogniser} do
      {{:ok, program}, _install} ->
        {:ok, program}

      {:missing, true} ->
        tell.("installing the recogniser")
        Recogniser.install(home)

      {:missing, false} ->
        {:ok, nil}
    end
  end

  defp speak(model, options, valid, tell) do
    # As given: what is left out may be configured.
    server = Keyword.take(options, Keyword.keys(Options.Schema.fetch(:server)))
    request = request(model, valid)
    run = fn options -> Run.run(options, @sentences, request, tell) end

    with {:ok, first} <- run.(server) do
      case first do
        %{device: "cpu"} ->
          {:ok, found(model, first, nil, left(model, valid.device, first))}

        %{spoken: []} ->
          with {:ok, cpu} <- run.(Keyword.put(server, :device, :cpu)),
               do: {:ok, found(model, cpu, nil, {:failed, "#{first.device} was left: #{first.reason}"})}

        device ->
          with {:ok, cpu} <- run.(Keyword.put(server, :device, :cpu)),
               do: {:ok, found(model, cpu, device, nil)}
      end
    end
  end

  defp request(model, valid) do
    tokens = if valid.max_tokens, do: [max_tokens: valid.max_tokens], else: []
    language = if "en" in model.languages, do: [language: "en"], else: []
    tokens ++ language ++ [timeout: valid.timeout]
  end

  defp left(model, requested, run),
    do: Checks.left(requested, run.reason, model.devices, &Chatterbex.devices/0)

  defp found(model, cpu, device, left) do
    %{
      sentences: @sentences,
      cpu: cpu,
      device: device,
      left: left,
      similarities: if(device, do: similarities(cpu, device), else: []),
      watermark: model.profile == "torch",
      unheard: nil
    }
  end

  defp similarities(cpu, device) do
    for {one, other} <- Enum.zip(cpu.spoken, device.spoken) do
      if Enum.all?([one, other], &(&1.problem == nil)),
        do: Similarity.compare({one.audio, one.loudness}, {other.audio, other.loudness})
    end
  end

  defp watermarks(%{watermark: false} = found, _tell), do: {:ok, found}

  defp watermarks(found, tell) do
    tell.("looking for the watermark")

    each_run(found, fn run ->
      run.spoken
      |> Enum.reduce_while({:ok, []}, fn spoken, {:ok, done} ->
        case watermark(spoken) do
          {:ok, found?} -> {:cont, {:ok, [%{spoken | watermarked: found?} | done]}}
          {:error, error} -> {:halt, {:error, error}}
        end
      end)
      |> then(&with {:ok, spoken} <- &1, do: {:ok, %{run | spoken: Enum.reverse(spoken)}})
    end)
  end

  defp watermark(%{problem: nil, audio: audio}), do: Audio.detect_watermark(audio)
  defp watermark(_no_sound), do: {:ok, false}

  defp listen(found, nil, _tell) do
    {:ok, %{found | unheard: "the recogniser is not installed: --install-recogniser installs it"}}
  end

  defp listen(found, program, tell) do
    tell.("listening")
    each_run(found, &hear(&1, program))
  end

  # The recogniser skips audio that could not be measured.
  defp hear(run, program) do
    audios = for %{problem: nil, audio: audio} <- run.spoken, do: audio

    with {:ok, heard} <- Recogniser.hear(program, audios) do
      {spoken, []} =
        run.spoken
        |> Enum.zip(@sentences)
        |> Enum.map_reduce(heard, fn
          {%{problem: nil} = spoken, said}, [heard | rest] -> {heard(spoken, said, heard), rest}
          {spoken, said}, rest -> {heard(spoken, said, ""), rest}
        end)

      {:ok, %{run | spoken: spoken}}
    end
  end

  defp heard(spoken, said, heard), do: %{spoken | heard: heard, word_errors: Words.errors(said, heard)}

  defp each_run(found, work) do
    with {:ok, cpu} <- work.(found.cpu),
         {:ok, device} <- if(found.device, do: work.(found.device), else: {:ok, nil}),
         do: {:ok, %{found | cpu: cpu, device: device}}
  end

  defp report(model, found) do
    checks = Checks.all(found)
    runs = Enum.reject([found.cpu, found.device], &is_nil/1)

    %{
      model: model.name,
      passed: Enum.all?(checks, &(&1.status != :failed)),
      checks: checks,
      measured: Enum.map(runs, &measured/1),
      sentences: sentences(runs, found.similarities),
      versions: found.cpu.versions
    }
  end

  defp measured(run) do
    audio = run.spoken |> Enum.map(& &1.seconds) |> Enum.sum()
    work = run.spoken |> Enum.map(& &1.work_seconds) |> Enum.sum()

    %{
      device: run.device,
      warning: run.warning,
      load_seconds: run.load_seconds,
      audio_seconds: audio,
      work_seconds: work,
      rtf: work / audio,
      first_audio_seconds: run.first_audio_seconds,
      word_error_rate: Checks.word_error_rate(run, @sentences)
    }
  end

  defp sentences(runs, similarities) do
    @sentences
    |> Enum.with_index()
    |> Enum.map(fn {text, at} ->
      spoken =
        for run <- runs, do: run.spoken |> Enum.at(at) |> Map.delete(:audio) |> Map.put(:device, run.device)

      %{text: text, spoken: spoken, similarity: Enum.at(similarities, at)}
    end)
  end
end
