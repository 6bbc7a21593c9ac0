defmodule Chatterbex.Player do
  @moduledoc false
  # Plays audio with a player of the system.

  alias Chatterbex.{Audio, Error, Files.Replacement}

  @players [
    {"afplay", []},
    {"pw-play", []},
    {"paplay", []},
    {"aplay", ["-q"]},
    {"play", ["-q"]}
  ]

  @type t :: {program :: String.t(), arguments :: [String.t()]}

  @spec find() :: {:ok, t} | {:error, Error.t()}
  def find do
    case Enum.find(@players, fn {program, _arguments} -> System.find_executable(program) end) do
      nil ->
        names = Enum.map_join(@players, ", ", &elem(&1, 0))

        {:error,
         Error.new(
           :not_supported,
           "no audio player found (looked for #{names}). Write a file instead, with -o hello.wav"
         )}

      player ->
        {:ok, player}
    end
  end

  @doc """
  Plays the audio and returns when it has finished.
  """
  @spec play(t, Audio.t()) :: :ok | {:error, Error.t()}
  def play({program, arguments}, audio) do
    path = Replacement.unique(Path.join(System.tmp_dir!(), "chatterbex")) <> ".wav"

    try do
      with :ok <- Audio.write(audio, path) do
        case System.cmd(program, arguments ++ [path], stderr_to_stdout: true) do
          {_output, 0} -> :ok
          {output, status} -> {:error, failed(program, status, output)}
        end
      end
    after
      File.rm(path)
    end
  end

  defp failed(program, status, output) do
    Error.new(
      :generation_failed,
      "#{program} could not play the audio (status #{status}): #{output |> String.trim() |> String.replace("\n", " ")}. " <>
        "Write a file instead, with -o hello.wav"
    )
  end
end
