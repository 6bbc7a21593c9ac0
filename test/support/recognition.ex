defmodule Chatterbex.Recognition do
  @moduledoc """
  Ears for tests: what pocketsphinx understands of audio (test/python/recognition.py).
  """

  import ExUnit.Assertions

  alias Chatterbex.{Audio, JSON}

  @doc """
  Why there are no ears on this machine, or `false`.
  """
  def missing do
    case python() do
      nil -> "pocketsphinx is not installed: bin/test installs it"
      _python -> false
    end
  end

  @doc """
  For each group of pairs of a text and its audio: the share of words that are understood, 0.0 to 1.0, and what was
  heard. Audio that is there twice is listened to once.
  """
  def understood(groups, dir) do
    groups = for group <- groups, do: for({text, audio} <- group, do: [text, file(audio, dir)])

    input = Path.join(dir, "heard.json")
    File.write!(input, JSON.encode(groups))
    script = Path.expand("../python/recognition.py", __DIR__)
    {output, status} = System.cmd("sh", ["-c", ~s("$0" "$1" < "$2"), python(), script, input])
    assert status == 0, output
    assert {:ok, groups} = JSON.decode(output)
    for %{"understood" => share, "heard" => heard} <- groups, do: {share, heard}
  end

  defp file(audio, dir) do
    path = Path.join(dir, Base.encode16(:erlang.md5(audio.samples)) <> ".wav")
    unless File.exists?(path), do: :ok = Audio.write(audio, path)
    path
  end

  @doc """
  A Python that has pocketsphinx, or `nil`.
  """
  def python do
    dev = Path.join(Chatterbex.Python.home(), "dev/bin/python")
    Enum.find([System.get_env("CHATTERBEX_TEST_PYTHON"), dev], &(&1 && File.exists?(&1)))
  end
end
