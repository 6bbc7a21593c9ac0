defmodule Chatterbex.MachineFaultsTest do
  @moduledoc """
  Faults of the machine below an isolated server: its disk, its files, its clock. After each, the next request speaks.
  """
  use ExUnit.Case, async: true

  import Chatterbex.{TestHelp, VoiceHelp}

  alias Chatterbex.{Audio, Error}

  @moduletag :faults
  @moduletag :tmp_dir

  @start """
  {:ok, _apps} = Application.ensure_all_started(:chatterbex)
  Logger.configure(level: :none)
  {:ok, server} = Chatterbex.start_link(model: :hibari, isolation: :peer)
  :ok = Chatterbex.await_ready(server: server)
  """

  @small_disk "mount -t tmpfs -o size=512k tmpfs disk && exec \"$@\""

  @tag skip:
         (case System.cmd("sh", ["-c", "unshare -m mount -t tmpfs tmpfs /mnt"], stderr_to_stdout: true) do
            {_output, 0} -> false
            {_output, _status} -> "this user may not mount a small disk"
          end)
  test "a full disk", %{tmp_dir: dir} do
    File.mkdir!(Path.join(dir, "disk"))

    code =
      @start <>
        ~S"""
        text = Enum.map_join(1..12, " ", &"This is sentence number #{&1}.")
        File.write!("disk/old.wav", "old")
        {:ok, audio} = Chatterbex.generate(server, text, seed: 1)

        write = fn
          :at_once -> Chatterbex.Audio.write(audio, "disk/old.wav")
          :piece_by_piece ->
            try do
              server |> Chatterbex.stream(text) |> Enum.into(Chatterbex.Audio.Writer.new("disk/new.wav"))
              :ok
            rescue
              error in Chatterbex.Error -> {:error, error}
            end
        end

        for how <- [:at_once, :piece_by_piece] do
          {:error, %{reason: :file_error, message: message}} = write.(how)
          true = message =~ "no space left on device (enospc). Free some space or write elsewhere."
          # The old file stays, and nothing is left over.
          {["old.wav"], "old"} = {File.ls!("disk"), File.read!("disk/old.wav")}
          {:ok, %{samples: samples}} = Chatterbex.generate(server, text, seed: 1)
          true = samples == audio.samples
        end

        {:ok, short} = Chatterbex.generate(server, "Short.")
        :ok = Chatterbex.Audio.write(short, "disk/old.wav")
        IO.puts("it speaks, and writes")
        """

    {output, status} = elixir(code, cd: dir, wrapper: ["unshare", "-m", "sh", "-c", @small_disk, "sh"])
    assert {status, output} == {0, "it speaks, and writes\n"}
  end

  @tag skip: no_chatterbox()
  test "files that vanish: those of the model, and those of a voice", %{tmp_dir: dir} do
    folder = Path.join(dir, "model")
    voices = Path.join(dir, "voices")
    File.cp_r!(checkpoint(:nano), folder)
    File.mkdir!(voices)
    File.write!(Path.join(voices, "ann.voice"), voice(%{"name" => "Ann"}, 1))

    server = start_server(model: :nano, checkpoint: folder, voices: voices, device: :cpu, isolation: :peer)

    speak = fn voice -> Chatterbex.generate(server, "Yes.", [seed: 1, max_tokens: 3] ++ voice) end
    assert {:ok, %Audio{samples: samples}} = speak.([])
    assert {:ok, %Audio{samples: with_voice}} = speak.(voice: "ann")

    # A loaded model no longer needs its files.
    File.rename!(folder, folder <> ".away")
    File.rename!(voices, voices <> ".away")
    assert {:ok, %Audio{samples: ^samples}} = speak.([])
    assert {:error, %Error{reason: :file_error, message: message}} = speak.(voice: "ann")
    assert message =~ "the folder of voices #{voices} cannot be read"
    assert {:ok, %Audio{samples: ^samples}} = speak.([])

    # A model that is loaded again does.
    {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
    {_output, 0} = System.cmd("kill", ["-KILL", pid])
    assert {:error, %Error{reason: :model_files_missing, message: message}} = speak.([])
    assert message =~ folder

    assert {:ok, %{status: :failed, error: %Error{reason: :model_files_missing}}} =
             Chatterbex.info(server: server)

    File.rename!(folder <> ".away", folder)
    File.rename!(voices <> ".away", voices)
    assert {:ok, %Audio{samples: ^samples}} = speak.([])
    assert {:ok, %Audio{samples: ^with_voice}} = speak.(voice: "ann")
  end

  # Waits are measured by a clock that does not jump.
  @tag skip: if(:os.type() == {:unix, :linux}, do: false, else: "the clock is replaced by means of Linux")
  test "a clock that jumps by days, forwards and back", %{tmp_dir: dir} do
    shim = Path.join(dir, "clock.so")
    source = Path.expand("../support/clock.c", __DIR__)

    {output, status} =
      System.cmd("cc", ["-shared", "-fPIC", "-O1", "-o", shim, source], stderr_to_stdout: true)

    assert status == 0, output
    File.write!(Path.join(dir, "offset"), <<0::64>>)

    code =
      @start <>
        ~S"""
        {:ok, offset} = :file.open("offset", [:read, :write, :raw, :binary])
        jump = fn days -> :ok = :file.pwrite(offset, 0, <<days * 86_400::signed-native-64>>) end
        long = String.duplicate("This is a sentence. ", 200)
        began = System.os_time(:second)

        for days <- [1, -2, 0] do
          speaking = Task.async(fn -> Chatterbex.generate(server, String.duplicate("One and two. ", 20)) end)
          listening = Task.async(fn -> server |> Chatterbex.stream("One. Two. Three.") |> Enum.count() end)
          jump.(days)
          IO.puts("jumped by #{round((System.os_time(:second) - began) / 86_400)}")
          # The peer's clock does not jump either.
          send(:sys.get_state(server).engine, :heartbeat)
          {:ok, _audio} = Task.await(speaking, 60_000)
          true = Task.await(listening, 60_000) > 0
          {:error, %{reason: :timeout}} = Chatterbex.generate(server, long, timeout: 50)
          soon = DateTime.add(DateTime.utc_now(), 50, :millisecond)
          {:error, %{reason: :timeout}} = Chatterbex.generate(server, long, deadline: soon)
          later = DateTime.add(DateTime.utc_now(), 60, :second)
          {:ok, %{process: %{os_pid: pid}}} = Chatterbex.info(server: server)
          {_output, 0} = System.cmd("kill", ["-KILL", pid])
          {:ok, _audio} = Chatterbex.generate(server, "And on.", deadline: later)
        end

        {:ok, %{process: %{died: died}}} = Chatterbex.info(server: server)
        IO.puts("died #{died} times")
        """

    environment = [{"LD_PRELOAD", shim}, {"CLOCK_OFFSET", Path.join(dir, "offset")}]
    wrapper = ["timeout", "--signal=KILL", "200"]
    {output, status} = elixir(code, cd: dir, env: environment, wrapper: wrapper)
    assert status == 0, output

    assert String.split(output, "\n", trim: true) ==
             ["jumped by 1", "jumped by -2", "jumped by 0", "died 3 times"]
  end
end
