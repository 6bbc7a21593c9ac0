defmodule Chatterbex.Speech.Whole do
  @moduledoc false
  # Speaks a text and joins its pieces into one audio.

  alias Chatterbex.{Audio, Client, Error, Model, Server.Request, Text.Splitter, Text.Validation}
  alias Chatterbex.Speech.{Metadata, Piece, Plan}

  @doc """
  Speaks a text that `Chatterbex.Text.Validation.check/1` has passed.
  """
  @spec generate(Plan.t(), String.t(), (map -> term) | nil) :: {:ok, Audio.t()} | {:error, Error.t()}
  def generate(plan, text, progress) do
    with :ok <- Validation.fits(String.length(text), plan.max_characters),
         {:ok, text} <- Validation.readable(text, plan.model),
         {:ok, [_ | _] = pieces} <- pieces(plan, text),
         {:ok, audios} <- speak_all(plan, text, Enum.reject(pieces, &is_nil(&1.number)), progress),
         do: {:ok, join(pieces, audios, plan.model)},
         else: (nothing_or_error -> refused(nothing_or_error))
  end

  defp refused({:ok, []}) do
    {:error,
     Error.new(
       :invalid_text,
       "nothing is left to speak: the text has only sounds that the model does not have"
     )}
  end

  defp refused({:error, error}), do: {:error, error}

  # A text may consist only of pauses.
  defp speak_all(_plan, _text, [], _progress), do: {:ok, %{}}

  defp speak_all(plan, text, spoken, progress) do
    done = %{characters: 0, total: String.length(text), pieces: 0, seconds: 0.0}
    by_number = Map.new(spoken, &{&1.number, &1})

    speak(plan, Enum.map(spoken, &Piece.command(&1, false, plan.model)), done, fn number, audio, done ->
      report(progress, by_number[number], audio, done)
    end)
  end

  @doc """
  Speaks pieces, at least one, and returns their audio by number. Calls `reduce` as each piece finishes, with its number,
  its audio, and what `reduce` returned last, at first `acc`.
  """
  @spec speak(Plan.t(), [Request.piece(), ...], acc, (non_neg_integer, Audio.t(), acc -> acc)) ::
          {:ok, %{non_neg_integer => Audio.t()}} | {:error, Error.t()}
        when acc: term
  def speak(plan, pieces, acc, reduce) do
    with {:ok, limit} <- Plan.limit(plan),
         settings = Map.merge(limit, %{priority: plan.priority, options: plan.options}),
         {:ok, ref} <- Client.open(plan.server, settings, pieces) do
      try do
        collect(plan.server, ref, length(pieces), %{}, acc, reduce)
      after
        Client.release(plan.server, ref)
      end
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

  defp collect(_server, _ref, 0, audios, _acc, _reduce), do: {:ok, audios}

  defp collect(server, ref, left, audios, acc, reduce) do
    case Client.next(server, ref) do
      {:done, number, audio} ->
        collect(server, ref, left - 1, Map.put(audios, number, audio), reduce.(number, audio, acc), reduce)

      {:error, error} ->
        {:error, error}
    end
  end

  defp report(nil, _piece, _audio, done), do: done

  defp report(progress, piece, audio, done) do
    done = Piece.progress(done, piece, Audio.duration(audio))
    progress.(done)
    done
  end

  # The usual text is one piece: its samples are not copied.
  defp join([%{pause: 0, number: 0}], %{0 => audio}, _model),
    do: %{audio | metadata: Metadata.merge([audio], byte_size(audio.samples))}

  defp join(pieces, audios, model) do
    pieces
    |> Enum.flat_map(&[audios[&1.number], &1.pause])
    |> Enum.reject(&is_nil/1)
    |> join(model)
  end

  @doc """
  Joins audio and silence, which is given in milliseconds. All of it may be silence.
  """
  @spec join([Audio.t() | non_neg_integer], Model.t()) :: Audio.t()
  def join(parts, model) do
    spoken = Enum.filter(parts, &is_struct(&1, Audio))
    first = List.first(spoken) || %Audio{samples: "", sample_rate: model.sample_rate}
    samples = parts |> Enum.map(&samples(&1, first.sample_rate)) |> IO.iodata_to_binary()
    %{first | samples: samples, metadata: metadata(spoken, byte_size(samples), model)}
  end

  defp samples(%Audio{samples: samples}, _rate), do: samples
  defp samples(milliseconds, rate), do: Piece.silence(milliseconds, rate)

  defp metadata([], _bytes, model), do: %{model: model.name, pieces: 0}
  defp metadata(spoken, bytes, _model), do: Metadata.merge(spoken, bytes)
end
