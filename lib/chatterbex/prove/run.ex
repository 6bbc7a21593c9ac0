defmodule Chatterbex.Prove.Run do
  @moduledoc false
  # One device: starts a server on it, speaks all sentences, and stops the server.

  alias Chatterbex.{Audio, Device, Error}

  @typedoc """
  A sentence as it was spoken. `problem` says why its audio cannot be measured. `watermarked` is `nil` where the model
  has no watermark; `heard` and `word_errors` are, where nobody listened.
  """
  @type spoken :: %{
          audio: Audio.t(),
          seconds: float,
          work_seconds: float,
          tokens: non_neg_integer | nil,
          loudness: float | :silent | nil,
          problem: String.t() | nil,
          watermarked: boolean | nil,
          heard: String.t() | nil,
          word_errors: non_neg_integer | nil
        }

  @typedoc """
  `spoken` is empty where the device was left before all was said; `reason` then says why, or why another device than the
  requested one was taken.
  """
  @type t :: %{
          device: String.t(),
          reason: String.t() | nil,
          warning: String.t() | nil,
          versions: map,
          load_seconds: float,
          first_audio_seconds: float | nil,
          spoken: [spoken]
        }

  @doc """
  Starts a server with `options` and speaks with it, in this process.

  `request` are the options of each request; sentence `n` has the seed `n`, from 1. `tell` is called with lines about
  what is being done.
  """
  @spec run(keyword, [String.t()], keyword, (String.t() -> term)) :: {:ok, t} | {:error, Error.t()}
  def run(options, sentences, request, tell) do
    tell.("loading the model")

    with {:ok, server} <- Chatterbex.start_link(options) do
      try do
        with :ok <- Chatterbex.await_ready(server: server), do: speak(server, sentences, request, tell)
      after
        Chatterbex.stop(server: server)
      end
    end
  end

  defp speak(server, sentences, request, tell) do
    with {:ok, before} <- Chatterbex.info(server: server),
         device = Device.to_string(before.device.actual),
         tell.("warming up on #{device}"),
         {:ok, _warm} <- Chatterbex.generate(server, hd(sentences), [seed: 0] ++ request),
         {:ok, spoken} <- all(server, sentences, request, &tell.("speaking on #{device}, #{&1}")),
         {:ok, first} <- first_audio(server, Enum.join(sentences, " "), [seed: 1] ++ request),
         {:ok, now} <- Chatterbex.info(server: server) do
      stayed? = now.device.actual == before.device.actual

      {:ok,
       %{
         device: device,
         reason: now.device.reason,
         warning: now.device.warning,
         versions: now.versions,
         load_seconds: loading(now.load),
         first_audio_seconds: if(stayed?, do: first),
         spoken: if(stayed?, do: spoken, else: [])
       }}
    end
  end

  # Importing happens once in a VM, for the model that is loaded first.
  defp loading(phases), do: phases |> Map.drop([:packages, :import]) |> Map.values() |> Enum.sum()

  defp all(server, sentences, request, tell) do
    sentences
    |> Enum.with_index(1)
    |> Enum.reduce_while({:ok, []}, fn {sentence, number}, {:ok, spoken} ->
      tell.("sentence #{number} of #{length(sentences)}")

      case timed(fn -> Chatterbex.generate(server, sentence, [seed: number] ++ request) end) do
        {seconds, {:ok, audio}} -> {:cont, {:ok, [measure(audio, seconds) | spoken]}}
        {_seconds, {:error, error}} -> {:halt, {:error, error}}
      end
    end)
    |> then(&with {:ok, spoken} <- &1, do: {:ok, Enum.reverse(spoken)})
  end

  # Samples that are not numbers are a finding, not an error of the proof.
  defp measure(audio, work_seconds) do
    {loudness, problem} =
      case Audio.loudness(audio) do
        {:ok, :silent} -> {:silent, "it is silent"}
        {:ok, loudness} -> {loudness, nil}
        {:error, error} -> {nil, error.message}
      end

    %{
      audio: audio,
      seconds: Audio.duration(audio),
      work_seconds: work_seconds,
      tokens: audio.metadata[:tokens],
      loudness: loudness,
      problem: problem,
      watermarked: nil,
      heard: nil,
      word_errors: nil
    }
  end

  defp first_audio(server, text, request) do
    {seconds, [_chunk]} = timed(fn -> server |> Chatterbex.stream(text, request) |> Enum.take(1) end)
    {:ok, seconds}
  rescue
    error in Error -> {:error, error}
  end

  defp timed(work) do
    started = System.monotonic_time(:microsecond)
    result = work.()
    {(System.monotonic_time(:microsecond) - started) / 1_000_000, result}
  end
end
