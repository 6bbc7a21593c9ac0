defmodule Chatterbex.NotSetUpTest do
  use ExUnit.Case, async: true

  alias Chatterbex.{Error, TestHelp}

  @moduletag :tmp_dir
  @moduletag capture_log: true

  # A complete environment in its own folder: links to the real one, with a manifest to tamper with.
  defp copy_of_environment(dir) do
    {:ok, python} = Chatterbex.Python.find()
    venv = Path.join(dir, "venv")
    File.mkdir_p!(venv)
    real = Path.join(python.home, "venv")

    for entry <- File.ls!(real),
        entry != "chatterbex.json",
        do: File.ln_s!(Path.join(real, entry), Path.join(venv, entry))

    File.cp!(Path.join(real, "chatterbex.json"), Path.join(venv, "chatterbex.json"))
    venv
  end

  defp refused(home) do
    {:ok, server} = Chatterbex.start_link(home: home)
    assert {:error, %Error{} = error} = Chatterbex.generate(server, "Hello")
    assert {:error, %Error{}} = Chatterbex.await_ready(server: server)
    assert {:ok, %{status: :failed, error: %Error{}}} = Chatterbex.info(server: server)
    :ok = Chatterbex.stop(server: server)
    error
  end

  test "no environment", %{tmp_dir: dir} do
    error = refused(Path.join(dir, "none"))
    assert error.reason == :not_set_up
    assert error.message =~ "mix chatterbex.setup"
    assert error.message =~ Path.join(dir, "none")
  end

  test "an environment whose Python was removed", %{tmp_dir: dir} do
    venv = copy_of_environment(dir)
    File.rm!(Path.join(venv, "bin"))
    error = refused(dir)
    assert error.reason == :not_set_up
    assert error.message =~ "mix chatterbex.setup"
  end

  test "a manifest of an older version", %{tmp_dir: dir} do
    manifest = Path.join(copy_of_environment(dir), "chatterbex.json")
    text = File.read!(manifest)
    File.write!(manifest, String.replace(text, ~r/"manifest":\s*\d+/, ~s("manifest": 0)))
    refute File.read!(manifest) == text

    error = refused(dir)
    assert error.reason == :not_set_up
    assert error.message =~ "mix chatterbex.setup"
  end

  test "a manifest that is not JSON", %{tmp_dir: dir} do
    File.write!(Path.join(copy_of_environment(dir), "chatterbex.json"), "{")
    assert refused(dir).message =~ "mix chatterbex.setup"
  end

  test "once it is set up, the same server speaks", %{tmp_dir: dir} do
    {:ok, python} = Chatterbex.Python.find()

    # A VM has one Python, so a test of what happens before it is loaded needs its own VM.
    code = """
    Logger.configure(level: :none)
    {:ok, _apps} = Application.ensure_all_started(:chatterbex)
    {:ok, server} = Chatterbex.start_link(home: "later")
    {:error, %{reason: :not_set_up}} = Chatterbex.generate(server, "Hello")
    File.ln_s!(#{inspect(python.home)}, "later")
    {:ok, audio} = Chatterbex.generate(server, "Hello")
    IO.puts("seconds: \#{Chatterbex.Audio.duration(audio)}")
    """

    {output, status} = TestHelp.elixir(code, cd: dir)
    assert status == 0, output
    assert output =~ "seconds: "
  end

  # A loaded library stays loaded, so a test of what happens without it needs its own VM.
  for library <- [:libpython, :engine, :audio] do
    test "the native library #{library} is missing", %{tmp_dir: dir} do
      for other <- [:libpython, :engine, :audio], other != unquote(library) do
        File.cp!("#{Chatterbex.Native.Library.path(other)}.so", Path.join(dir, "#{other}.so"))
      end

      code = """
      {:ok, _apps} = Application.ensure_all_started(:chatterbex)
      Logger.configure(level: :none)

      result =
        with {:ok, audio} <- Chatterbex.generate("Hello"), do: Chatterbex.Audio.to_wav(audio)

      {:error, %Chatterbex.Error{} = error} = result
      IO.puts("\#{error.reason} | \#{error.message}")
      IO.puts("the VM is up: \#{1 + 1}")
      """

      {output, status} = TestHelp.elixir(code, env: [{"CHATTERBEX_NATIVE_DIR", dir}])
      assert status == 0, output

      assert output =~
               "native_not_loaded | the native library #{dir}/#{unquote(library)}.so is missing. Build it with"

      assert output =~ "the VM is up: 2"
    end
  end

  test "a native library that is not a library", %{tmp_dir: dir} do
    for name <- [:libpython, :chatterbex, :audio], do: File.write!(Path.join(dir, "#{name}.so"), "no library")

    code = """
    {:error, error} = Chatterbex.Audio.from_wav("")
    IO.puts("\#{error.reason} | \#{error.message}")
    """

    {output, 0} = TestHelp.elixir(code, env: [{"CHATTERBEX_NATIVE_DIR", dir}])
    assert output =~ "native_not_loaded | the native library #{dir}/audio.so does not load: "
  end
end
