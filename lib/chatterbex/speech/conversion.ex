defmodule Chatterbex.Speech.Conversion do
  @moduledoc false
  # Converts speech to another voice. A recording that is too long for the model is cut at quiet places.

  alias Chatterbex.{Audio, Error, Options}
  alias Chatterbex.Speech.{Plan, Whole}
  alias Chatterbex.Voice.Recording

  @shortest 0.1
  @longest 3600
  # Seconds of the longest piece, of the stretch at its end in which the quietest place is looked for, and of the shortest
  # rest. The model takes 120 s, but its work and memory grow with the square.
  @lengths %{piece: 60, search: 20, rest: 1}
  # The model makes 25 tokens a second. If cuts are between two tokens, the pieces are as long as the whole.
  @tokens 25

  @doc """
  The recording to convert, from a path or from audio.
  """
  @spec recording(Path.t() | Audio.t()) :: {:ok, Recording.t()} | {:error, Error.t()}
  def recording(%Audio{} = audio), do: Recording.new(audio)

  def recording(path) when is_binary(path),
    do: with({:ok, audio} <- Audio.read(path), do: Recording.new(audio))

  def recording(other) do
    {:error,
     Error.new(
       :invalid_option,
       "only speech can be converted: give the path of a recording or a Chatterbex.Audio, not #{Options.Schema.show(other)}"
     )}
  end

  @doc """
  Converts a recording by a plan for audio. The time since `started`, in monotonic milliseconds, counts.
  """
  @spec convert(Plan.t(), Recording.t(), integer, map) :: {:ok, Audio.t()} | {:error, Error.t()}
  def convert(plan, recording, started, lengths \\ @lengths) do
    with :ok <- check(recording),
         parts = recording |> cut(lengths) |> number(),
         {:ok, plan} <- Plan.spend(plan, started),
         commands = for({part, number} <- parts, number, do: command(part, number)),
         {:ok, audios} <- Whole.speak(plan, commands, nil, fn _number, _audio, nil -> nil end),
         do: {:ok, parts |> Enum.map(&spoken(&1, audios)) |> Whole.join(plan.model)}
  end

  defp check(%{seconds: seconds}) when seconds <= @shortest,
    do: refuse(seconds, "more than #{@shortest} s are needed")

  defp check(%{seconds: seconds}) when seconds > @longest,
    do: refuse(seconds, "at most #{@longest} s can be converted")

  defp check(recording) do
    if Recording.silent?(recording),
      do: {:error, Error.new(:invalid_audio, "the audio is silent: there is nothing to convert")},
      else: :ok
  end

  defp refuse(seconds, expected) do
    seconds = Float.round(seconds, 2)
    {:error, Error.new(:invalid_audio, "the audio is #{seconds} s long; #{expected}", %{seconds: seconds})}
  end

  # The model refuses silent audio.
  defp number(parts) do
    {numbered, _next} =
      Enum.map_reduce(parts, 0, fn part, next ->
        if Recording.silent?(part), do: {{part, nil}, next}, else: {{part, next}, next + 1}
      end)

    numbered
  end

  defp command(part, number),
    do: %{number: number, text: "", stream: false, options: %{"audio" => Recording.command(part)}}

  # Silence keeps its length.
  defp spoken({part, nil}, _audios), do: round(part.seconds * 1000)
  defp spoken({_part, number}, audios), do: audios[number]

  @doc """
  Splits a recording, at its quietest places, into pieces that are short enough for the model. The work is proportional to
  the length.
  """
  @spec cut(Recording.t(), map) :: [Recording.t()]
  def cut(recording, lengths \\ @lengths) do
    case ends(recording, 0, lengths) do
      [_whole] -> [recording]
      ends -> Recording.parts(recording, ends)
    end
  end

  # The frames at which pieces end, if the first begins at the frame `start`.
  defp ends(recording, start, lengths) do
    frames = div(byte_size(recording.samples), 4)
    seconds = (frames - start) / recording.sample_rate

    if seconds <= lengths.piece do
      [frames]
    else
      latest = min(lengths.piece, seconds - lengths.rest)
      stop = start + quietest(recording, start, latest - lengths.search, latest)
      [stop | ends(recording, stop, lengths)]
    end
  end

  # The frame between two tokens with the least sound around it. It counts from `start`, and so do the seconds.
  defp quietest(recording, start, from, to) do
    tokens = ceil(from * @tokens)..floor(to * @tokens)

    powers =
      Enum.map(
        tokens,
        &power(recording, start + frame(recording, &1), start + frame(recording, &1 + 1))
      )

    {_power, token} =
      powers |> Enum.zip_with(tl(powers), &+/2) |> Enum.zip(Enum.drop(tokens, 1)) |> Enum.min()

    frame(recording, token)
  end

  defp frame(recording, token), do: div(token * recording.sample_rate, @tokens)

  defp power(recording, from, to),
    do: recording.samples |> binary_part(4 * from, 4 * (to - from)) |> squares(0.0)

  defp squares(<<sample::float-32-little, rest::binary>>, sum), do: squares(rest, sum + sample * sample)
  defp squares("", sum), do: sum
end
