defmodule Chatterbex.Prove.Checks do
  @moduledoc false
  # The verdicts, from the measurements.

  alias Chatterbex.Device
  alias Chatterbex.Prove.{Run, Similarity, Words}

  # Of all words of all sentences. pocketsphinx itself mishears about one word in ten of clear speech.
  @max_wrong 0.3
  # How much worse than the CPU a device may be.
  @max_worse 0.1
  # If two tokens are almost equally likely, different last bits can select the other one.
  @max_different 2

  @type status :: :passed | :failed | :skipped
  @type check :: %{name: String.t(), status: status, message: String.t()}

  @typedoc """
  `device` is `nil` where only the CPU spoke. `left` is why the requested device did not speak, as
  `{:failed | :skipped, reason}`. `unheard` is why there was no speech recognition, or `nil`.
  """
  @type found :: %{
          sentences: [String.t()],
          cpu: Run.t(),
          device: Run.t() | nil,
          left: {:failed | :skipped, String.t()} | nil,
          similarities: [Similarity.t() | nil],
          watermark: boolean,
          unheard: String.t() | nil
        }

  @doc """
  All checks, in the order of the report.
  """
  @spec all(found) :: [check]
  def all(found) do
    runs = Enum.reject([found.cpu, found.device], &is_nil/1)
    [device(found), sound(runs), watermark(found.watermark, runs), agreement(found), words(found, runs)]
  end

  @doc """
  Why only the CPU spoke: `requested` is the requested device, and `reason` is the server's.

  `supported` are the kinds of device that the model can use; `devices` is `Chatterbex.devices/0`, which starts a Python.
  """
  @spec left(Device.t(), String.t() | nil, [atom], (... -> [Device.description()])) ::
          {:failed | :skipped, String.t()}
  def left(:cpu, _reason, _supported, _devices), do: {:skipped, "only the CPU was asked for"}
  def left(:auto, reason, [:cpu], _devices), do: {:skipped, reason || "the model runs on the CPU only"}

  def left(:auto, reason, supported, devices) do
    case Enum.find(devices.(), &(&1.available and kind(&1.device) in (supported -- [:cpu]))) do
      nil -> {:skipped, reason || "there is only the CPU"}
      device -> {:failed, "#{device.name} was not used: #{reason || "no reason was given"}"}
    end
  end

  def left(device, reason, _supported, _devices),
    do: {:failed, reason || "#{Device.to_string(device)} was not used"}

  defp kind({:cuda, _number}), do: :cuda
  defp kind(kind), do: kind

  @doc """
  The share of words that were misheard in a run, 0.0 and above; `nil` without speech recognition.
  """
  @spec word_error_rate(Run.t(), [String.t()]) :: float | nil
  def word_error_rate(run, sentences) do
    errors = Enum.map(run.spoken, & &1.word_errors)
    words = sentences |> Enum.map(&length(Words.split(&1))) |> Enum.sum()
    if Enum.all?(errors, &is_integer/1), do: Enum.sum(errors) / words
  end

  defp device(%{device: %{device: device}}), do: passed("device", "#{device} spoke every sentence")
  defp device(%{left: {status, reason}}), do: check("device", status, reason)

  defp sound(runs) do
    case for run <- runs,
             {%{problem: problem}, n} when problem != nil <- numbered(run),
             do: "#{run.device} #{n}: #{problem}" do
      [] -> passed("sound", "every sentence is finite and not silent")
      problems -> failed("sound", Enum.join(problems, "; "))
    end
  end

  defp watermark(false, _runs), do: skipped("watermark", "the model has none")

  defp watermark(true, runs) do
    case for run <- runs, {%{watermarked: false}, n} <- numbered(run), do: "#{run.device} #{n}" do
      [] -> passed("watermark", "found in every sentence")
      missing -> failed("watermark", "not found in sentences: #{Enum.join(missing, ", ")}")
    end
  end

  defp agreement(%{device: nil}), do: skipped("agreement", "there is only the CPU")

  defp agreement(%{similarities: similarities} = found) do
    total = length(similarities)

    tokens =
      Enum.count(Enum.zip(found.cpu.spoken, found.device.spoken), fn {one, other} ->
        one.tokens == other.tokens
      end)

    same = Enum.count(similarities, &(&1 != nil and Similarity.same?(&1)))
    message = "#{same} of #{total} sentences are the same speech on both, #{tokens} have as many tokens"
    if total - same <= @max_different, do: passed("agreement", message), else: failed("agreement", message)
  end

  defp words(%{unheard: why}, _runs) when why != nil, do: skipped("words", why)

  defp words(found, runs) do
    rates = for run <- runs, do: {run.device, word_error_rate(run, found.sentences)}
    {_cpu, reference} = hd(rates)
    wrong? = fn {_device, rate} -> rate > @max_wrong or rate > reference + @max_worse end

    message =
      Enum.map_join(rates, ", ", fn {device, rate} -> "#{device}: #{percent(rate)} of the words misheard" end)

    if Enum.any?(rates, wrong?), do: failed("words", message), else: passed("words", message)
  end

  defp numbered(run), do: Enum.with_index(run.spoken, 1)

  defp percent(share), do: "#{round(share * 100)} %"

  defp passed(name, message), do: check(name, :passed, message)
  defp failed(name, message), do: check(name, :failed, message)
  defp skipped(name, message), do: check(name, :skipped, message)
  defp check(name, status, message), do: %{name: name, status: status, message: message}
end
