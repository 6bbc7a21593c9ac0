defmodule Chatterbex.TestHelp do
  @moduledoc """
  What several test files need.
  """

  import ExUnit.Assertions
  import ExUnit.Callbacks

  @doc """
  A path for a temporary file or folder that no other test or VM uses. For tests that cannot use `:tmp_dir`.
  """
  def temporary_path(name), do: Chatterbex.Files.Replacement.unique(Path.join(System.tmp_dir!(), name))

  @doc """
  Starts a server under the test's supervisor and waits until it has its model. Returns its pid.
  """
  def start_server(options \\ []) do
    id = System.unique_integer()
    server = start_supervised!(Supervisor.child_spec({Chatterbex, options}, id: id))
    assert :ok = Chatterbex.await_ready(server: server, timeout: 60_000)
    server
  end

  @doc """
  Starts a server with the tests' own model, which does what its text tells it to (test/python/fake_model.py).
  """
  def start_fake(options \\ []), do: start_server([model: :fake] ++ options)

  @doc """
  Calls a function of a server's model.
  """
  def call_model(server, function, arguments \\ %{}) do
    assert {:ok, answer} = Chatterbex.Client.call_model(server, function, arguments, 5_000)
    answer
  end

  @doc """
  Waits until the fake model holds `n` requests whose text says "hold".
  """
  def await_held(server, n), do: await(fn -> call_model(server, "held") == %{"held" => n} end)

  @doc """
  The folder of a model's synthetic checkpoint (test/python/synthetic): small, in the real file formats, and made on
  the first need. Nothing may be written to it.
  """
  def checkpoint(model) do
    name = if model == :multilingual, do: "multilingual_v3", else: Atom.to_string(model)
    key = {__MODULE__, :checkpoint, name}

    :global.trans({key, self()}, fn ->
      with nil <- :persistent_term.get(key, nil) do
        folder = make_checkpoint(name)
        :persistent_term.put(key, folder)
        folder
      end
    end)
  end

  defp make_checkpoint(name) do
    code = "import sys; from synthetic import checkpoints; print(checkpoints.checkpoint(sys.argv[1]))"
    {output, status} = System.cmd(test_python(), ["-c", code, name], cd: python_tests())
    assert status == 0, "no synthetic checkpoint of #{name} could be made"
    output |> String.trim() |> String.split("\n") |> List.last()
  end

  @doc """
  A Python that can run what is in test/python: that of bin/test, or the library's own, which has the same PyTorch.
  """
  def test_python do
    with nil <- System.get_env("CHATTERBEX_TEST_PYTHON") do
      {:ok, python} = Chatterbex.Python.find(profiles: ["hibari", "torch"])
      python.program
    end
  end

  @doc """
  The folder test/python.
  """
  def python_tests, do: Path.expand("../python", __DIR__)

  @doc """
  Why the Chatterbox models cannot run here, for `@tag skip:`; `false` where they can.
  """
  def no_chatterbox do
    case Chatterbex.Python.find(profiles: ["hibari", "torch"]) do
      {:ok, _python} -> false
      {:error, error} -> error.message
    end
  end

  @doc """
  What the fake model says for a text, as bytes.
  """
  def echo(text), do: for(<<byte <- text>>, into: "", do: <<byte / 256::float-32-little>>)

  @doc """
  Runs Elixir code in its own VM, with this project's code, and returns `{output, exit_status}`.

  `options`: `:env` as for `System.cmd/3`, `:cd`, and `:wrapper`, a command that runs the VM's.
  """
  def elixir(code, options \\ []) do
    paths = Enum.flat_map(:code.get_path(), fn path -> ["-pa", to_string(path)] end)
    command = options[:wrapper] || []
    [program | arguments] = command ++ [System.find_executable("elixir")] ++ paths ++ ["-e", code]
    environment = [{"MIX_ENV", "test"} | options[:env] || []]
    System.cmd(program, arguments, env: environment, stderr_to_stdout: true, cd: options[:cd] || File.cwd!())
  end

  @doc """
  A wrapper for `elixir/2` under which no file grows beyond half a megabyte: a full disk to whoever writes one.
  """
  def full_disk, do: ["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh"]

  @doc """
  Waits until the server has no request waiting or running; fails after `timeout` milliseconds.
  """
  def await_idle(server, timeout \\ 10_000) do
    await(
      fn -> match?({:ok, %{queue: %{waiting: 0, running: 0}}}, Chatterbex.info(server: server)) end,
      timeout
    )
  end

  @doc """
  Asks until `condition` holds; fails after `timeout` milliseconds.

  For states of the operating system and of the model thread, which send no message when they change.
  """
  def await(condition, timeout \\ 10_000) do
    deadline = System.monotonic_time(:millisecond) + timeout
    await_until(condition, deadline)
  end

  defp await_until(condition, deadline) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        flunk("the condition did not come true in time")

      true ->
        Process.send_after(self(), :again, 5) && receive(do: (:again -> await_until(condition, deadline)))
    end
  end

  @doc """
  This VM's resident memory in bytes.
  """
  def resident_bytes do
    {kilobytes, 0} = System.cmd("ps", ["-o", "rss=", "-p", System.pid()])
    kilobytes |> String.trim() |> String.to_integer() |> Kernel.*(1024)
  end
end
