defmodule Chatterbex.ConfigurationTest do
  # Not async: it changes the configuration, which all tests share.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Configuration, Error}

  @moduletag :tmp_dir

  defp configure(name, value) do
    before = Application.fetch_env(:chatterbex, name)
    Application.put_env(:chatterbex, name, value)

    on_exit(fn ->
      case before do
        {:ok, value} -> Application.put_env(:chatterbex, name, value)
        :error -> Application.delete_env(:chatterbex, name)
      end
    end)
  end

  # As `eval` in a release does: the configuration is there, and no application is loaded.
  test "is read, and the version known, even if the application is not loaded", %{tmp_dir: dir} do
    config = Path.join(dir, "sys.config")
    File.write!(config, ~s([{chatterbex, [{home, <<"#{dir}/home">>}, {models, []}]}].))

    code = """
    IO.puts(inspect(Application.spec(:chatterbex, :vsn)))
    IO.puts(Chatterbex.Python.home())
    {:error, error} = Chatterbex.Setup.run(python: "#{dir}/no-python", quiet: true)
    IO.puts(error.message)
    """

    {output, 0} = elixir(code, env: [{"ERL_FLAGS", "-config #{config}"}, {"CHATTERBEX_HOME", nil}])

    ["nil", home | message] = String.split(output, "\n")
    assert home == Path.join(dir, "home")
    assert Enum.join(message, "\n") =~ "no-python"
    assert File.dir?(home)

    {output, 0} = elixir("IO.write(Chatterbex.Configuration.version())")
    assert output == Configuration.version()
    assert output =~ ~r/^\d+\.\d+\.\d+/
  end

  test "a misspelt key is refused with the nearest name" do
    configure(:max_qeue, 5)
    assert {:error, %Error{reason: :invalid_option, message: message}} = Chatterbex.start_link(model: :fake)

    assert message =~
             "config :chatterbex has an unknown key :max_qeue. Did you mean :max_queue? The keys are :checkpoint, "
  end

  test "is the default of a server's options" do
    configure(:max_queue, 5)
    server = start_fake()
    assert {:ok, %{queue: %{max_queue: 5}}} = Chatterbex.info(server: server)
    assert {:ok, %{queue: %{max_queue: 7}}} = Chatterbex.info(server: start_fake(max_queue: 7))
  end

  test "options configured for another model do not matter" do
    configure(:checkpoint, "/nowhere")
    configure(:language_pack, "hi")
    server = start_server()
    assert {:ok, %{model: :hibari, checkpoint: nil}} = Chatterbex.info(server: server)
  end
end
