defmodule Mix.Tasks.Chatterbex.VoiceTest do
  # Not async: it captures output that all tests share, and turns the log off.
  use ExUnit.Case, async: false

  import Chatterbex.{TestHelp, VoiceHelp}
  import ExUnit.CaptureIO

  alias Chatterbex.Audio
  alias Mix.Tasks.Chatterbex.Voice

  @moduletag :tmp_dir

  setup do
    level = Logger.level()
    on_exit(fn -> Logger.configure(level: level) end)
  end

  defp refused(arguments) do
    error = assert_raise Mix.Error, fn -> Voice.run(arguments) end
    refute error.message =~ "\n"
    error.message
  end

  test "invalid arguments are refused" do
    assert refused([]) == "nothing to do: give clone, list or info. See `mix help chatterbex.voice`."

    assert refused(["clnoe", "ann.wav"]) ==
             "there is no command \"clnoe\". Did you mean \"clone\"? Give clone, list or info. " <>
               "See `mix help chatterbex.voice`."

    assert refused(["clone"]) =~ "clone takes one file."
    assert refused(["info", "a", "b"]) =~ "info takes one file."
    assert refused(["list", "a", "b"]) =~ "list takes one folder, or none."
    assert refused(["list", "--nmae", "x"]) =~ "unknown option --nmae."
  end

  test "lists a folder", %{tmp_dir: dir} do
    assert capture_io(:stderr, fn -> Voice.run(["list", dir]) end) == "no voices\n"
    File.write!(Path.join(dir, "ann.voice"), voice())
    :ok = Audio.write(tone(1), Path.join(dir, "bob.wav"))
    assert capture_io(fn -> Voice.run(["list", dir]) end) == "ann\tturbo\nbob\trecording\n"
    assert refused(["list", Path.join(dir, "none")]) =~ "no such file or directory"
    assert refused(["list"]) =~ "no folder of voices is configured"
  end

  test "describes a voice", %{tmp_dir: dir} do
    path = Path.join(dir, "ann.voice")
    File.write!(path, voice(%{"name" => "Ann", "note" => "agreed", "seconds" => "6.5"}))
    said = capture_io(fn -> Voice.run(["info", path]) end)
    assert said =~ "name: Ann\nfamily: turbo\nnote: agreed\nseconds: 6.5\nwarning: it is 6.5 s long"
    assert refused(["info", Path.join(dir, "none.voice")]) =~ "none.voice cannot be read: no such file"
  end

  test "refuses to clone a file that is not a recording, without loading a model", %{tmp_dir: dir} do
    path = Path.join(dir, "ann.wav")
    :ok = Audio.write(tone(2), path)
    assert refused(["clone", path, "--checkpoint", dir]) =~ "is 2.0 s long; more than 5.0 s are needed"
    assert refused(["clone", path, "--model", "hibari"]) =~ "the model :hibari only has its own voices"
    assert refused(["clone", path, "--model", "trubo"]) =~ "there is no model \"trubo\". Did you mean :turbo?"
    assert File.ls!(dir) == ["ann.wav"]
  end

  @tag skip: no_chatterbox(), timeout: 300_000
  test "clones", %{tmp_dir: dir} do
    path = Path.join(dir, "ann.wav")
    :ok = Audio.write(tone(6), path)
    saved = Path.join(dir, "ann.voice")
    arguments = ["clone", path, "--model", "nano", "--checkpoint", checkpoint(:nano), "--note", "agreed"]
    said = capture_io(:stderr, fn -> Voice.run(arguments) end)
    assert said =~ ~s(wrote #{saved}: #Chatterbex.Voice<"ann", turbo, 6.0 s>\nwarning: it is 6.0 s long)
    assert {:ok, %{name: "ann", metadata: %{note: "agreed"}} = voice} = Chatterbex.Voice.load(saved)

    capture_io(:stderr, fn -> Voice.run(["--no-norm-loudness" | arguments]) end)
    assert {:ok, %{name: "ann"} = other} = Chatterbex.Voice.load(saved)
    assert other.data != voice.data
    assert other.metadata == voice.metadata
  end
end
