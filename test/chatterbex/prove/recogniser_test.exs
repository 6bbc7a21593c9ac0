defmodule Chatterbex.Prove.RecogniserTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Audio, Error, Python, Recognition}
  alias Chatterbex.Prove.Recogniser

  @moduletag :tmp_dir

  @tag skip: Recognition.missing(), timeout: 600_000
  test "it is installed next to the models' environment, and recognises speech", %{tmp_dir: dir} do
    home = Path.join(dir, "home")
    File.mkdir_p!(home)
    assert Recogniser.find(home) == :missing
    assert {:error, %Error{reason: :not_set_up}} = Recogniser.install(home)

    File.ln_s!(Python.venv(Python.home()), Python.venv(home))
    assert {:ok, program} = Recogniser.install(home)
    assert Recogniser.find(home) == {:ok, program}
    # uv is in "bin" if the machine has none.
    assert (File.ls!(home) -- ["bin"]) |> Enum.sort() == ["recogniser", "venv"]

    {:ok, pause} = Audio.silence(300)
    speech = Chatterbex.generate!("Please open the window.", seed: 1)
    {:ok, stereo} = Audio.resample(speech, 48_000)
    samples = for <<sample::binary-size(4) <- stereo.samples>>, into: "", do: sample <> sample
    stereo = %{stereo | samples: samples, channels: 2}

    # It hears a pause as a short word, or not at all.
    assert {:ok, ["please open the window", _pause, "please open the window"]} =
             Recogniser.hear(program, [speech, pause, stereo])

    assert Recogniser.hear(program, []) == {:ok, []}

    # If it was made from another lock, it is made again.
    File.write!(Path.join(home, "recogniser/recogniser.sha256"), "of yesterday")
    assert Recogniser.find(home) == :missing
    assert {:ok, ^program} = Recogniser.install(home)
    assert Recogniser.find(home) == {:ok, program}

    File.rm!(program)
    assert Recogniser.find(home) == :missing
  end

  test "a Python without it says what is missing, and leaves nothing behind" do
    {:ok, python} = Python.find()
    {:ok, audio} = Audio.silence(100)
    left = fn -> Path.wildcard(Path.join(System.tmp_dir!(), "chatterbex-prove.*")) end
    before = left.()
    assert {:error, %Error{reason: :not_set_up} = error} = Recogniser.hear(python.program, [audio])
    assert error.message =~ "No module named 'pocketsphinx'"
    assert error.message =~ "--install-recogniser"
    assert left.() -- before == []

    nan = %Audio{samples: <<0, 0, 192, 127>>, sample_rate: 24_000}
    assert {:error, %Error{reason: :invalid_audio}} = Recogniser.hear(python.program, [nan])
  end
end
