defmodule Chatterbex.PlayerTest do
  # Alone: it puts players into PATH.
  use ExUnit.Case, async: false

  alias Chatterbex.{Audio, Error, Player}

  doctest Player

  @moduletag :tmp_dir

  defp chosen(system, programs) do
    case Player.choose(system, &(&1 in programs)) do
      {:ok, {program, _arguments}} -> program
      {:error, %Error{reason: :not_supported, message: message}} -> message
    end
  end

  test "each system has its players, in order" do
    all = ~w(afplay pw-play paplay aplay play powershell.exe)
    assert chosen(:macos, all) == "afplay"
    assert chosen(:linux, all) == "pw-play"
    assert chosen(:linux, all -- ["pw-play"]) == "paplay"
    assert chosen(:linux, ~w(afplay play powershell.exe)) == "play"
    assert chosen(:wslg, all) == "pw-play"
    assert chosen(:wslg, ["powershell.exe"]) == "powershell.exe"
    assert chosen(:wsl, all) == "powershell.exe"
    # Windows' programs may be turned off in WSL.
    assert chosen(:wsl, ["aplay"]) == "aplay"
  end

  test "none: what was looked for" do
    assert chosen(:macos, ~w(aplay)) ==
             "no audio player found (looked for afplay). Write a file instead, with -o hello.wav"

    assert chosen(:linux, ~w(afplay)) =~ "(looked for pw-play, paplay, aplay, play)"
    assert chosen(:wsl, []) =~ "(looked for powershell.exe, pw-play, paplay, aplay, play)"
  end

  test "the kind of system" do
    assert Player.system({:unix, :darwin}, false, nil) == :macos
    assert Player.system({:unix, :linux}, false, "tcp:somewhere") == :linux
    assert Player.system({:unix, :linux}, true, "") == :wsl
    assert Player.system({:unix, :linux}, true, nil) == :wsl
  end

  describe "a program of Windows" do
    setup %{tmp_dir: dir} do
      path = System.get_env("PATH")
      on_exit(fn -> System.put_env("PATH", path) end)
      System.put_env("PATH", dir <> ":" <> path)
    end

    defp program(dir, name, script) do
      path = Path.join(dir, name)
      File.write!(path, "#!/bin/sh\n" <> script)
      File.chmod!(path, 0o755)
    end

    test "gets the path as Windows sees it", %{tmp_dir: dir} do
      program(dir, "wslpath", ~S[printf '\\\\wsl.localhost\\Bob'"'"'s%s\n' "$2"])
      program(dir, "powershell.exe", "printf '%s\\n' \"$@\" > '#{dir}/said'")

      assert Player.play({"powershell.exe", []}, %Audio{samples: <<0::32>>, sample_rate: 24_000, channels: 1}) ==
               :ok

      assert [_profile, _interactive, "-Command", command] =
               File.read!("#{dir}/said") |> String.split("\n", trim: true)

      assert command =~
               ~r/^\(New-Object System\.Media\.SoundPlayer '\\\\wsl\.localhost\\Bob''s\/.*\.wav'\)\.PlaySync\(\)$/
    end

    test "without a path there is an error", %{tmp_dir: dir} do
      program(dir, "wslpath", "echo no such path; exit 1")
      audio = %Audio{samples: <<0::32>>, sample_rate: 24_000, channels: 1}
      assert {:error, %Error{message: message}} = Player.play({"powershell.exe", []}, audio)
      assert message =~ "wslpath could not play the audio (status 1): no such path. Write a file instead"
    end
  end
end
