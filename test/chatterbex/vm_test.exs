defmodule Chatterbex.VMTest do
  @moduledoc """
  What Python inside the VM may not do to the VM.
  """
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp
  import ExUnit.CaptureLog

  @moduletag :tmp_dir

  @start """
  {:ok, _apps} = Application.ensure_all_started(:chatterbex)
  Logger.configure(level: :none)
  path = #{inspect(Path.expand("../python", __DIR__))}
  Application.put_env(:chatterbex, :models, fake: [python: "fake_model:FakeModel", path: path])
  {:ok, server} = Chatterbex.start_link(model: :fake)
  :ok = Chatterbex.await_ready(server: server)
  """

  defp evaluate(server, expression) do
    with {:ok, audio} <- Chatterbex.generate(server, "eval: #{expression}"), do: audio.metadata.value
  end

  test "an exception that escapes the engine fails all open requests, and the next server works", %{
    tmp_dir: dir
  } do
    # In its own VM: it breaks every model of the VM.
    code =
      @start <>
        """
        {:error, error} = Chatterbex.generate(server, "crash")
        IO.puts("crash: \#{error.reason}")

        again = fn again, n ->
          case Chatterbex.generate(server, "after") do
            {:ok, _audio} -> IO.puts("the server speaks again")
            {:error, error} when n == 0 -> IO.puts("no: \#{error.message}")
            {:error, _error} -> Process.sleep(100) && again.(again, n - 1)
          end
        end

        again.(again, 50)
        """

    {output, status} = elixir(code, cd: dir)
    assert status == 0, output
    assert output =~ "crash: engine_crashed"
    assert output =~ "the server speaks again"
  end

  test "System.stop with work in flight ends with status 0", %{tmp_dir: dir} do
    code =
      @start <>
        """
        for n <- 1..20, do: spawn(fn -> Chatterbex.generate(server, "sleep:50 steps:1000 \#{n}") end)
        {:ok, voice} = Chatterbex.start_link(model: :hibari)
        for n <- 1..20, do: spawn(fn -> Chatterbex.generate(voice, String.duplicate("Number \#{n}. ", 500)) end)
        :ok = Chatterbex.await_ready(server: voice)
        IO.puts("stopping")
        System.stop(0)
        Process.sleep(:infinity)
        """

    {output, status} = elixir(code, cd: dir, wrapper: ["timeout", "--signal=KILL", "20"])
    assert output =~ "stopping"
    assert status == 0, output
  end

  test "System.halt with work in flight does not crash", %{tmp_dir: dir} do
    code =
      @start <>
        """
        {:ok, voice} = Chatterbex.start_link(model: :hibari)
        :ok = Chatterbex.await_ready(server: voice)
        for n <- 1..20, do: spawn(fn -> Chatterbex.generate(voice, String.duplicate("Number \#{n}. ", 500)) end)
        {:ok, _audio} = Chatterbex.generate(voice, "One.")
        System.halt(3)
        """

    {output, status} = elixir(code, cd: dir, wrapper: ["timeout", "--signal=KILL", "20"])
    assert status == 3, output
  end

  # For example, the model's own threads, which finish their work while nobody waits for them.
  @tag skip: no_chatterbox()
  test "System.halt with other threads computing in PyTorch does not crash", %{tmp_dir: dir} do
    compute = ~S"""
    eval: (lambda torch, Thread: [
      Thread(target=lambda: any(torch.nn.functional.conv1d(torch.randn(1, 64, 9000), torch.randn(64, 64, 7)) is None
                                for _ in iter(int, 1)), daemon=True).start()
      for _ in range(4)
    ])(__import__("torch"), __import__("threading").Thread)
    """

    code =
      @start <>
        """
        {:ok, _audio} = Chatterbex.generate(server, #{inspect(String.replace(compute, "\n", " "))})
        {:ok, _audio} = Chatterbex.generate(server, "eval: __import__('time').sleep(0.5)")
        IO.puts("halting")
        System.halt(3)
        """

    for _time <- 1..3 do
      {output, status} = elixir(code, cd: dir, wrapper: ["timeout", "--signal=KILL", "60"])
      assert output =~ "halting"
      assert {status, output} == {3, output}
    end
  end

  test "a queue that is too long is refused", %{tmp_dir: dir} do
    code = """
    {:ok, python} = Chatterbex.Python.find(profiles: ["hibari"])
    {:ok, _version} = Chatterbex.Native.LibPython.open(python.libpython)

    for queue <- [0, 65_537, 0xFFFFFFFFFFFFFFFF] do
      {:error, {:invalid_option, message, _details}} =
        Chatterbex.Native.start(%{"program" => python.program, "queue" => queue}, self())

      IO.puts(message)
    end

    :ok = Chatterbex.Native.stop(0xFFFFFFFFFFFFFFFF)
    """

    {output, status} = elixir(code, cd: dir)
    assert status == 0, output
    assert output =~ ~s("queue" must be from 1 to 65536)
  end

  test "SIGTERM stays the VM's", %{tmp_dir: dir} do
    code =
      @start <>
        """
        System.trap_signal(:sigterm, fn -> IO.puts("the VM got it"); System.stop(0); :ok end)
        System.cmd("kill", ["-TERM", System.pid()])
        Process.sleep(:infinity)
        """

    {output, status} = elixir(code, cd: dir, wrapper: ["timeout", "--signal=KILL", "20"])
    assert status == 0, output
    assert output =~ "the VM got it"
  end

  test "a code reload does not crash the VM, and speaking continues", %{tmp_dir: dir} do
    code =
      @start <>
        """
        for module <- [Chatterbex.Native, Chatterbex.Native.Audio, Chatterbex.Native.LibPython, Chatterbex.Server,
                       Chatterbex.Runtime, Chatterbex] , _twice <- 1..2 do
          :code.purge(module)
          {:module, ^module} = :code.load_file(module)
        end

        {:ok, audio} = Chatterbex.generate(server, "after the reload")
        {:ok, wav} = Chatterbex.Audio.to_wav(audio)
        {:ok, other} = Chatterbex.start_link(model: :hibari)
        {:ok, _audio} = Chatterbex.generate(other, "A new server.")
        IO.puts("bytes: \#{byte_size(wav)}")
        """

    {output, status} = elixir(code, cd: dir)
    assert status == 0, output
    assert output =~ "bytes: #{44 + 2 * String.length("after the reload")}"
  end

  test "Python may start programs, and may not fork the VM" do
    server = start_fake()

    assert evaluate(server, ~s|__import__("subprocess").run(["echo","hi"],capture_output=True).stdout|) ==
             "b'hi\\n'"

    assert {:error, error} = evaluate(server, ~s|__import__("os").fork()|)
    assert error.message =~ "fork"
  end

  test "Python has one thread of its own, with a large stack" do
    servers = [start_fake(), start_fake()]

    threads =
      for server <- servers, n <- 1..5 do
        {:ok, audio} = Chatterbex.generate(server, "thread #{n}")
        audio.metadata.thread
      end

    assert [_one] = Enum.uniq(threads)

    # 2 MiB, the default of Rust's threads, are too little for this: the VM would crash.
    deep =
      ~s|(__import__("sys").setrecursionlimit(20000), (lambda f: f(f, 10000))(lambda f, n: n and f(f, n - 1)))[1]|

    assert evaluate(hd(servers), deep) == "0"
  end

  test "what Python prints goes to Logger, not to the terminal" do
    server = start_fake()
    level = Logger.level()
    Logger.configure(level: :debug)

    log =
      capture_log(fn ->
        assert {:ok, _audio} = Chatterbex.generate(server, "print:printed log:logged warn:warned")
        # The lines do not come the same way as the answer.
        assert {:ok, _audio} = Chatterbex.generate(server, "next")
        :sys.get_state(Chatterbex.Runtime)
      end)

    Logger.configure(level: level)
    assert log =~ "[info] printed"
    assert log =~ ~r/\[error\].*logged/
    assert log =~ ~r/\[warning\].*warned/
  end

  test "half a surrogate pair in a line of Python's log loses only that character" do
    server = start_fake()

    log =
      capture_log(fn ->
        evaluate(
          server,
          ~S"[__import__('logging').getLogger('x').error(line) for line in ['one \ud800 two', 'three']]"
        )

        assert {:ok, _audio} = Chatterbex.generate(server, "next")
        :sys.get_state(Chatterbex.Runtime)
      end)

    assert log =~ ~r/one \x{FFFD}+ two/u
    assert log =~ "three"
  end

  test "the environment of the VM reaches Python" do
    assert evaluate(start_fake(), ~s|__import__("sys").prefix != __import__("sys").base_prefix|) == "True"
  end

  test "no NIF that runs on a normal scheduler touches Python" do
    source = Path.expand("../../native", __DIR__)
    nifs = for file <- Path.wildcard("#{source}/*/src/**/*.rs"), nif <- nifs(File.read!(file)), do: nif
    normal = for {name, :normal, _body} <- nifs, do: name

    assert length(nifs) >= 9
    assert Enum.sort(normal) == ["cancel", "status", "submit"]

    for {name, :normal, body} <- nifs do
      refute body =~ ~r/Python|pyo3|PyAny|attach|with_gil|\.lock\(\)|\.recv\(\)|recv_timeout|join\(\)/,
             "#{name}: #{body}"
    end
  end

  # {name, scheduler, body} of each NIF in a Rust source.
  defp nifs(source) do
    for [_all, schedule, name, rest] <-
          Regex.scan(
            ~r/#\[rustler::nif(?:\(([^)]*)\))?\]\s*(?:pub(?:\([^)]*\))? )?fn (\w+)(.*?\n}\n)/s,
            source
          ) do
      {name(schedule, name), if(schedule =~ "Dirty", do: :dirty, else: :normal), rest}
    end
  end

  defp name(schedule, name) do
    case Regex.run(~r/name\s*=\s*"(\w+)"/, schedule) do
      [_all, other] -> other
      nil -> name
    end
  end
end
