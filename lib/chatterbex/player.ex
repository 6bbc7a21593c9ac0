defmodule Chatterbex.Player do
  @moduledoc false
  # Plays audio with a player of the system.

  alias Chatterbex.{Audio, Error, Files.Replacement}

  @linux [{"pw-play", []}, {"paplay", []}, {"aplay", ["-q"]}, {"play", ["-q"]}]

  # In the order in which to look for them. In WSL, sound goes through WSLg's PulseAudio server, or, where that is missing,
  # through a program of Windows. ALSA has no sound card there.
  @players %{
    macos: [{"afplay", []}],
    linux: @linux,
    wslg: @linux ++ [{"powershell.exe", []}],
    wsl: [{"powershell.exe", []} | @linux]
  }

  @type system :: :macos | :linux | :wslg | :wsl
  @type t :: {program :: String.t(), arguments :: [String.t()]}

  @spec find() :: {:ok, t} | {:error, Error.t()}
  def find do
    wsl? = File.exists?("/proc/sys/fs/binfmt_misc/WSLInterop") or System.get_env("WSL_DISTRO_NAME") != nil
    choose(system(:os.type(), wsl?, System.get_env("PULSE_SERVER")), &System.find_executable/1)
  end

  @doc """
  The kind of system. `pulse` is the address of a PulseAudio server, which WSLg sets.

      iex> Chatterbex.Player.system({:unix, :linux}, true, "unix:/mnt/wslg/PulseServer")
      :wslg
  """
  @spec system({atom, atom}, boolean, String.t() | nil) :: system
  def system({_family, :darwin}, _wsl?, _pulse), do: :macos
  def system(_os, true, pulse), do: if(pulse in [nil, ""], do: :wsl, else: :wslg)
  def system(_os, false, _pulse), do: :linux

  @doc """
  The first player of a kind of system that `executable` finds.

      iex> Chatterbex.Player.choose(:linux, &(&1 == "aplay"))
      {:ok, {"aplay", ["-q"]}}
  """
  @spec choose(system, (String.t() -> term)) :: {:ok, t} | {:error, Error.t()}
  def choose(system, executable) do
    players = Map.fetch!(@players, system)

    case Enum.find(players, fn {program, _arguments} -> executable.(program) end) do
      nil ->
        names = Enum.map_join(players, ", ", &elem(&1, 0))
        message = "no audio player found (looked for #{names}). Write a file instead, with -o hello.wav"
        {:error, Error.new(:not_supported, message)}

      player ->
        {:ok, player}
    end
  end

  @doc """
  Plays the audio and returns when it has finished.
  """
  @spec play(t, Audio.t()) :: :ok | {:error, Error.t()}
  def play({program, _arguments} = player, audio) do
    path = Replacement.unique(Path.join(System.tmp_dir!(), "chatterbex")) <> ".wav"

    try do
      with :ok <- Audio.write(audio, path), {:ok, arguments} <- arguments(player, path) do
        case System.cmd(program, arguments, stderr_to_stdout: true) do
          {_output, 0} -> :ok
          {output, status} -> {:error, failed(program, status, output)}
        end
      end
    after
      File.rm(path)
    end
  end

  # A program of Windows needs the path as Windows sees it.
  defp arguments({"powershell.exe", []}, path) do
    case System.cmd("wslpath", ["-w", path], stderr_to_stdout: true) do
      {path, 0} ->
        file = path |> String.trim() |> String.replace("'", "''")
        command = "(New-Object System.Media.SoundPlayer '#{file}').PlaySync()"
        {:ok, ["-NoProfile", "-NonInteractive", "-Command", command]}

      {output, status} ->
        {:error, failed("wslpath", status, output)}
    end
  end

  defp arguments({_program, arguments}, path), do: {:ok, arguments ++ [path]}

  defp failed(program, status, output) do
    Error.new(
      :generation_failed,
      "#{program} could not play the audio (status #{status}): #{output |> String.trim() |> String.replace("\n", " ")}. " <>
        "Write a file instead, with -o hello.wav"
    )
  end
end
