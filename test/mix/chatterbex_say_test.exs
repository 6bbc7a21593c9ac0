defmodule Mix.Tasks.Chatterbex.SayTest do
  # Not async: it captures output that all tests share, turns the log off, and puts a player on the PATH.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp
  import ExUnit.CaptureIO

  alias Chatterbex.Audio
  alias Mix.Tasks.Chatterbex.Say

  @moduletag :tmp_dir

  setup do
    level = Logger.level()
    on_exit(fn -> Logger.configure(level: level) end)
  end

  defp refused(arguments) do
    error = assert_raise Mix.Error, fn -> capture_io(:stderr, fn -> Say.run(arguments) end) end
    refute error.message =~ "\n"
    error.message
  end

  test "speaks into a file", %{tmp_dir: dir} do
    path = Path.join(dir, "hello.wav")
    said = capture_io(:stderr, fn -> Say.run(["Hello,", "world!", "Again.", "-o", path, "--seed", "3"]) end)
    assert {:ok, audio} = Audio.read(path)
    seconds = :erlang.float_to_binary(Audio.duration(audio), decimals: 2)
    assert said =~ ~r/^wrote #{Regex.escape(path)}: #{seconds} s of audio, real-time factor \d+\.\d{3}\n$/

    again = Path.join(dir, "again.wav")

    assert capture_io(:stderr, fn -> Say.run(["Hello, world! Again.", "-o", again, "--seed", "3", "-q"]) end) ==
             ""

    assert File.read!(again) == File.read!(path)
    assert Enum.sort(File.ls!(dir)) == ["again.wav", "hello.wav"]
  end

  test "takes the text from a file, and its options on", %{tmp_dir: dir} do
    text = Path.join(dir, "text.txt")
    File.write!(text, "From a file.")
    [slow, fast] = for name <- ["slow.wav", "fast.wav"], do: Path.join(dir, name)
    Say.run(["-f", text, "-o", slow, "--speed", "0.5", "-q"])
    Say.run(["-f", text, "-o", fast, "--speed", "2.0", "-q"])
    [slow, fast] = for path <- [slow, fast], do: Audio.duration(elem(Audio.read(path), 1))
    assert slow > 2 * fast
  end

  test "plays sentence by sentence, with the pause after it", %{tmp_dir: dir} do
    player = Path.join(dir, "aplay")
    File.write!(player, "#!/bin/sh\nfor last; do :; done\ncp \"$last\" #{dir}/$(ls #{dir} | wc -l).wav\n")
    File.chmod!(player, 0o755)

    said =
      with_path(["#{dir}", "/usr/bin", "/bin"], fn ->
        capture_io(:stderr, fn -> Say.run(["One sentence. And another."]) end)
      end)

    assert [_first, _second] = played = Path.wildcard(Path.join(dir, "*.wav")) |> Enum.sort()
    [first, second] = Enum.map(played, &elem(Audio.read(&1), 1))
    assert :binary.part(first.samples, byte_size(first.samples), -24_000) == <<0::24_000*8>>
    seconds = Audio.duration(first) + Audio.duration(second)
    assert said == "played #{:erlang.float_to_binary(seconds, decimals: 2)} s of audio with aplay\n"
  end

  test "a player that fails, and none", %{tmp_dir: dir} do
    player = Path.join(dir, "aplay")
    File.write!(player, "#!/bin/sh\necho no sound card\nexit 3\n")
    File.chmod!(player, 0o755)

    assert with_path(["#{dir}", "/usr/bin", "/bin"], fn -> refused(["Hello."]) end) =~
             "aplay could not play the audio (status 3): no sound card. Write a file instead"

    File.rm!(player)
    assert with_path([dir], fn -> refused(["Hello."]) end) =~ "no audio player found (looked for "
  end

  test "what cannot be done is one line, before a model loads, and leaves no file", %{tmp_dir: dir} do
    path = Path.join(dir, "a.wav")

    assert refused(["Hello", "--ouptut", path]) =~
             "unknown option --ouptut. Did you mean \"--output\"? See `mix help chatterbex.say`."

    assert refused(["Hello", "--seed", "x"]) =~ ~s(--seed does not accept "x")
    assert refused(["  ", "-o", path]) =~ "the text"
    assert refused(["Hello", "-f", path]) =~ "give the text either as arguments or with --file"
    assert refused(["-f", Path.join(dir, "none.txt")]) =~ "none.txt: no such file or directory (enoent)."
    assert refused(["Hello", "-o", Path.join(dir, "none/a.wav")]) =~ "Make its folder first."
    assert refused(["Hello", "-o", path, "--model", "hibarri"]) =~ "Did you mean :hibari?"
    assert refused(["Hello", "-o", path, "--speed", "9.0"]) =~ ":speed must be a number from 0.5 to 2.0"
    assert refused(["Hello", "-o", path, "--voice", "nobody"]) =~ ~s("nobody")
    assert refused(["Hello", "-o", path, "--voice-file", "ann.wav"]) =~ ~s({:file, "ann.wav"})

    assert refused(["Hello", "--voice", "ann", "--voice-file", "ann.wav"]) =~
             "either as --voice or as --voice-file"

    assert refused(["Hello", "-o", path, "--language", "de"]) =~ "de"
    assert refused(["Hello", "-o", path, "--model", "nano", "--checkpoint", dir]) =~ dir
    assert File.ls!(dir) == []
  end

  test "the standard input, and the exit code", %{tmp_dir: dir} do
    run = fn script ->
      System.cmd("/bin/sh", ["-c", script, "sh", System.find_executable("mix")],
        env: [{"MIX_ENV", "test"}],
        stderr_to_stdout: true
      )
    end

    path = Path.join(dir, "piped.wav")
    {output, 0} = run.("printf 'Hello from a pipe.' | \"$1\" chatterbex.say -o #{path}")
    assert output =~ "wrote #{path}"
    assert {:ok, _audio} = Audio.read(path)

    {output, 1} = run.("printf '\\377' | \"$1\" chatterbex.say -o #{path}")
    assert output =~ "UTF-8"
  end

  @tag skip: no_chatterbox(), timeout: 300_000
  test "speaks with a Chatterbox model", %{tmp_dir: dir} do
    path = Path.join(dir, "nano.wav")
    arguments = ["Hi.", "-o", path, "--model", "nano", "--checkpoint", checkpoint(:nano), "--device", "cpu"]
    said = capture_io(:stderr, fn -> Say.run(arguments ++ ["--temperature", "0.5", "--max-tokens", "5"]) end)
    assert said =~ "wrote #{path}"
    assert {:ok, audio} = Audio.read(path)
    assert_in_delta Audio.duration(audio), 8 / 25, 3 / 25
  end

  defp with_path(folders, work) do
    old = System.get_env("PATH")
    System.put_env("PATH", Enum.join(folders, ":"))

    try do
      work.()
    after
      System.put_env("PATH", old)
    end
  end

  test "a project's own application is not started, and its configuration holds", %{tmp_dir: dir} do
    File.mkdir_p!(Path.join(dir, "lib"))
    File.mkdir_p!(Path.join(dir, "config"))

    File.write!(Path.join(dir, "mix.exs"), """
    defmodule Host.MixProject do
      use Mix.Project
      # The library comes from ERL_LIBS here, and Mix would remove it.
      def project, do: [app: :host, version: "0.1.0", prune_code_paths: false]
      def application, do: [mod: {Host, []}]
    end
    """)

    File.write!(Path.join(dir, "lib/host.ex"), """
    defmodule Host do
      use Application

      def start(_type, _arguments) do
        File.write!("started", "")
        Supervisor.start_link([], strategy: :one_for_one)
      end
    end
    """)

    mix = fn arguments ->
      System.cmd("mix", arguments,
        cd: dir,
        stderr_to_stdout: true,
        env: [
          {"MIX_ENV", "test"},
          {"MIX_BUILD_PATH", nil},
          {"ERL_LIBS", Path.expand("lib", Mix.Project.build_path())}
        ]
      )
    end

    {output, status} = mix.(["chatterbex.say", "Hello.", "-o", "hello.wav"])
    assert {status, output =~ "wrote hello.wav"} == {0, true}, output
    {output, status} = mix.(["chatterbex.bench", "--rounds", "1"])
    assert {status, output =~ "Only the CPU was measured"} == {0, true}, output
    refute File.exists?(Path.join(dir, "started"))

    File.write!(
      Path.join(dir, "config/config.exs"),
      ~s(import Config\nconfig :chatterbex, home: "/nowhere"\n)
    )

    {output, status} = mix.(["chatterbex.say", "Hello.", "-o", "hello.wav"])
    assert {status, output =~ "there is no Python environment in /nowhere"} == {1, true}, output
  end
end
