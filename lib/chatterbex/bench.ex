defmodule Chatterbex.Bench do
  @moduledoc """
  Measures how fast a model speaks on this machine, on the CPU and on its device.

      mix chatterbex.bench --model turbo

  prints the result. It shows whether a GPU pays off: a small model with one request at a time may well be faster on the
  CPU.

  It loads the model on the device, speaks some sentences once to warm up, and then `:rounds` times one after another,
  with the same seeds. Then it does the same on the CPU. The two models are never in memory at once. Other work on the
  machine affects the figures.
  """

  alias Chatterbex.{Audio, Configuration, Device, Error, Model, Options, Precision}

  # Of the Harvard sentences (IEEE Recommended Practice for Speech Quality Measurements, 1969), lists 1 and 2.
  @sentences [
    "The birch canoe slid on the smooth planks.",
    "It is easy to tell the depth of a well.",
    "The boy was there when the sun rose, and the salt breeze came across from the sea."
  ]

  @typedoc """
  The figures of one device.

    * `device` - `"cpu"`, `"mps"`, `"cuda:0"`
    * `load_seconds` - the time to load the model, move it to the device and warm it up, without importing PyTorch, which
      happens once in a VM
    * `audio_seconds`, `work_seconds` - the length of all sentences in all rounds, and the time that they took
    * `rtf` - `work_seconds` divided by `audio_seconds`: below 1 is faster than real time
    * `tokens_per_second` - speech tokens of T3, 25 of which make a second of audio; `nil` for models without T3
    * `first_audio_seconds` - the time to the first chunk of a stream of all sentences, the median of the rounds
    * `precision` - what the model computed in, as in `Chatterbex.info/1`; `nil` for models without a choice
  """
  @type measured :: %{
          device: String.t(),
          load_seconds: float,
          audio_seconds: float,
          work_seconds: float,
          rtf: float,
          tokens_per_second: float | nil,
          first_audio_seconds: float,
          precision: map | nil
        }

  @typedoc """
  `measured` has the CPU first. `faster` is the faster device, and `times` how many times as fast as the other it is. Both
  are `nil` if only the CPU was measured; `reason` then says why, unless you asked for the CPU only.
  """
  @type report :: %{
          model: atom,
          sentences: pos_integer,
          rounds: pos_integer,
          versions: map,
          measured: [measured, ...],
          faster: String.t() | nil,
          times: float | nil,
          reason: String.t() | nil
        }

  @doc """
  Measures a model.

  ## Options

  #{Options.Schema.docs(:bench)}

  Errors are those of `Chatterbex.start_link/1` and `Chatterbex.generate/2`. A model that speaks no text is
  `:not_supported`.

  ## Examples

      {:ok, %{faster: "mps", times: 3.1}} = Chatterbex.Bench.run(model: :turbo, device: :mps)

      iex> {:error, error} = Chatterbex.Bench.run(rounds: 0)
      iex> error.message
      "option :rounds must be a whole number from 1 to 100, got 0"
  """
  @spec run(keyword) :: {:ok, report} | {:error, Error.t()}
  def run(options \\ []) do
    with {:ok, valid} <- Options.validate(:bench, options), :ok <- speaks(options) do
      bench = %{
        # As given: what is left out may be configured.
        server: Keyword.take(options, Keyword.keys(Options.Schema.fetch(:server))),
        request:
          if(valid.max_tokens, do: [max_tokens: valid.max_tokens], else: []) ++ [timeout: valid.timeout],
        rounds: valid.rounds,
        tell: valid.progress || fn _progress -> :ok end
      }

      {:ok, report(bench)}
    end
  rescue
    error in Error -> {:error, error}
  end

  defp speaks(options) do
    name = Keyword.get(options, :model) || Configuration.get(:model, :hibari)

    with {:ok, model} <- Model.fetch(name) do
      if model.speaks,
        do: :ok,
        else:
          {:error,
           Error.new(
             :not_supported,
             "the model #{inspect(model.name)} speaks no text, so there is nothing to measure",
             %{model: model.name}
           )}
    end
  end

  defp report(bench) do
    first = on_device(bench, [])

    {measured, reason} =
      case first do
        %{measured: %{device: "cpu"} = cpu} -> {[cpu], first.reason}
        %{measured: nil} -> {[on_cpu(bench).measured], first.reason}
        %{measured: device} -> {[on_cpu(bench).measured, device], nil}
      end

    Map.merge(
      %{
        model: first.model,
        sentences: length(@sentences),
        rounds: bench.rounds,
        versions: first.versions,
        measured: measured,
        reason: reason
      },
      compare(measured)
    )
  end

  defp on_cpu(bench), do: on_device(bench, device: :cpu)

  defp compare([_cpu]), do: %{faster: nil, times: nil}

  defp compare(measured) do
    [fast, slow] = Enum.sort_by(measured, & &1.rtf)
    %{faster: fast.device, times: slow.rtf / fast.rtf}
  end

  # `measured` is nil if the device failed during the measurement.
  defp on_device(bench, instead) do
    options = Keyword.merge(bench.server, instead)
    bench.tell.("loading the model")
    server = ok!(Chatterbex.start_link(options))

    try do
      with {:error, error} <- Chatterbex.await_ready(server: server), do: raise(error)
      before = ok!(Chatterbex.info(server: server))
      measured = measure(server, Device.to_string(before.device.actual), speaking(bench, before.model))
      after_all = ok!(Chatterbex.info(server: server))

      %{
        model: before.model,
        versions: before.versions,
        reason: after_all.device.reason,
        measured:
          if(after_all.device.actual == before.device.actual,
            do: Map.merge(measured, %{load_seconds: loading(before.load), precision: before.precision})
          )
      }
    after
      Chatterbex.stop(server: server)
    end
  end

  # Importing happens once in a VM, for the model that is loaded first.
  defp loading(phases), do: phases |> Map.drop([:packages, :import]) |> Map.values() |> Enum.sum()

  defp speaking(bench, name) do
    {:ok, model} = Model.fetch(name)
    # The sentences are English.
    language = if "en" in model.languages, do: [language: "en"], else: []
    %{bench | request: bench.request ++ language}
  end

  defp measure(server, device, bench) do
    bench.tell.("warming up on #{device}")
    Enum.each(@sentences, &Chatterbex.generate!(server, &1, [seed: 0] ++ bench.request))

    rounds =
      for round <- 1..bench.rounds do
        bench.tell.("measuring on #{device}, round #{round} of #{bench.rounds}")

        spoken =
          Enum.map(
            @sentences,
            &timed(fn -> Chatterbex.generate!(server, &1, [seed: round] ++ bench.request) end)
          )

        {first, [_chunk]} =
          timed(fn ->
            server
            |> Chatterbex.stream(Enum.join(@sentences, " "), [seed: round] ++ bench.request)
            |> Enum.take(1)
          end)

        {spoken, first}
      end

    spoken = Enum.flat_map(rounds, &elem(&1, 0))
    work = spoken |> Enum.map(&elem(&1, 0)) |> Enum.sum()
    audios = Enum.map(spoken, &elem(&1, 1))
    seconds = audios |> Enum.map(&Audio.duration/1) |> Enum.sum()

    %{
      device: device,
      audio_seconds: seconds,
      work_seconds: work,
      rtf: work / seconds,
      tokens_per_second: tokens_per_second(audios),
      first_audio_seconds: rounds |> Enum.map(&elem(&1, 1)) |> median()
    }
  end

  # Chatterbox models report the seconds of each kind of work.
  defp tokens_per_second(audios) do
    counts = for %{metadata: %{tokens: tokens, seconds: %{t3: seconds}}} <- audios, do: {tokens, seconds}

    case counts |> Enum.map(&elem(&1, 1)) |> Enum.sum() do
      seconds when seconds > 0 -> (counts |> Enum.map(&elem(&1, 0)) |> Enum.sum()) / seconds
      _none -> nil
    end
  end

  @doc false
  @spec text(report) :: String.t()
  def text(report) do
    head = ["device", "loading", "RTF", "T3 tokens/s", "first audio"]

    rows =
      for one <- report.measured do
        tokens = if one.tokens_per_second, do: number(one.tokens_per_second, 0), else: "-"
        [one.device, seconds(one.load_seconds), number(one.rtf, 3), tokens, seconds(one.first_audio_seconds)]
      end

    """
    #{report.model}: #{report.sentences} sentences, #{report.rounds} #{if report.rounds == 1, do: "round", else: "rounds"}

    #{Enum.map_join([head | rows], "\n", &row/1)}

    RTF is seconds of work per second of audio: below 1 is faster than real time.
    #{Enum.map_join(report.measured, &precision/1)}#{conclusion(report)}\
    """
  end

  defp precision(%{precision: nil}), do: ""
  defp precision(%{device: device, precision: precision}), do: "On #{device}: #{Precision.used(precision)}.\n"

  defp conclusion(%{faster: "cpu"} = report) do
    [_cpu, device] = report.measured

    "The CPU is #{number(report.times, 1)} times as fast as #{device.device}: device: :cpu is the better choice here."
  end

  defp conclusion(%{faster: device} = report) when device != nil,
    do: "#{device} is #{number(report.times, 1)} times as fast as the CPU."

  defp conclusion(%{reason: nil}), do: "Only the CPU was measured."
  defp conclusion(%{reason: reason}), do: "Only the CPU was measured: #{reason}"

  defp row(cells), do: cells |> Enum.map_join("  ", &String.pad_trailing(&1, 12)) |> String.trim_trailing()

  defp seconds(value), do: number(value, 2) <> " s"
  defp number(value, decimals), do: :erlang.float_to_binary(value * 1.0, decimals: decimals)

  defp timed(work) do
    started = now()
    result = work.()
    {now() - started, result}
  end

  defp now, do: System.monotonic_time(:microsecond) / 1_000_000

  defp median(values), do: values |> Enum.sort() |> Enum.at(div(length(values), 2))

  defp ok!({:ok, value}), do: value
  defp ok!({:error, error}), do: raise(error)
end
