defmodule Chatterbex.Speech.Whole do
  @moduledoc false
  # Speaks a text and joins its pieces into one audio.

  alias Chatterbex.{Audio, Client, Error, Text.Check, Text.Splitter}
  alias Chatterbex.Speech.{Metadata, Piece, Plan}

  @doc """
  Speaks a text that `Chatterbex.Text.Check.check/1` has passed.
  """
  @spec generate(Plan.t(), String.t(), (map -> term) | nil) :: {:ok, Audio.t()} | {:error, Error.t()}
  def generate(plan, text, progress) do
    with :ok <- Check.fits(String.length(text), plan.max_characters),
         {:ok, text} <- Check.readable(text, plan.model),
         {:ok, pieces} <- pieces(plan, text),
         {:ok, left} <- Plan.left(plan.deadline),
         spoken = Enum.reject(pieces, &is_nil(&1.number)),
         settings = %{
           timeout: min(plan.timeout, left),
           priority: plan.priority,
           options: plan.options
         },
         {:ok, ref} <- Client.open(plan.server, settings, Enum.map(spoken, &Piece.command(&1, false))) do
      told = %{characters: 0, total: String.length(text), pieces: 0, seconds: 0.0}

      result =
        collect(plan.server, ref, length(spoken), %{}, Map.new(spoken, &{&1.number, &1}), {progress, told})

      Client.release(plan.server, ref)
      with {:ok, audios} <- result, do: {:ok, join(pieces, audios, plan)}
    end
  end

  defp pieces(plan, text) do
    splitter = Splitter.new(plan.text)

    with {:ok, chunks, splitter} <- Splitter.push(splitter, text), {:ok, rest} <- Splitter.finish(splitter) do
      {:ok, Piece.number(chunks ++ rest)}
    else
      {:error, _chunks, error} -> {:error, error}
    end
  end

  defp collect(_server, _ref, 0, audios, _pieces, _progress), do: {:ok, audios}

  defp collect(server, ref, left, audios, pieces, progress) do
    # The server's timer bounds this wait, and the monitor the server's end.
    case Client.next(server, ref, :any, :infinity, nil) do
      {:done, number, audio} ->
        progress = told(progress, pieces[number], audio)
        collect(server, ref, left - 1, Map.put(audios, number, audio), pieces, progress)

      {:error, error} ->
        {:error, error}
    end
  end

  defp told({nil, _told} = progress, _piece, _audio), do: progress

  defp told({function, told}, piece, audio) do
    told = Piece.progress(told, piece, Audio.duration(audio))
    function.(told)
    {function, told}
  end

  # The usual text is one piece: its samples are not copied.
  defp join([%{pause: 0, number: 0}], %{0 => audio}, _plan),
    do: %{audio | metadata: Metadata.merge([audio], byte_size(audio.samples))}

  defp join(pieces, audios, _plan) do
    %{0 => %Audio{sample_rate: rate} = first} = audios

    samples =
      pieces
      |> Enum.map(&[Map.get(audios, &1.number, %{samples: ""}).samples, Piece.silence(&1.pause, rate)])
      |> IO.iodata_to_binary()

    spoken = audios |> Enum.sort_by(&elem(&1, 0)) |> Enum.map(&elem(&1, 1))
    %{first | samples: samples, metadata: Metadata.merge(spoken, byte_size(samples))}
  end
end
