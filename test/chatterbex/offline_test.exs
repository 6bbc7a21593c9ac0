defmodule Chatterbex.OfflineTest do
  use ExUnit.Case, async: true

  alias Chatterbex.TestHelp

  @moduletag :tmp_dir

  # A network namespace with only a loopback interface that is down: speech in it needs no network.
  @unshare ["unshare", "--net", "--map-root-user"]

  @skip (case System.find_executable("unshare") &&
                System.cmd("unshare", ["--net", "--map-root-user", "true"], stderr_to_stdout: true) do
           {_output, 0} -> false
           nil -> "the command unshare is not there (Linux only, package util-linux)"
           {output, _status} -> "unshare may not make a network namespace here: #{String.trim(output)}"
         end)

  @tag skip: @skip
  test "speaking works with the network unplugged", %{tmp_dir: dir} do
    code = """
    {:error, reason} = :gen_tcp.connect({127, 0, 0, 1}, 9, [], 2_000)
    IO.puts("network: \#{reason}")
    {:ok, _apps} = Application.ensure_all_started(:chatterbex)
    {:ok, audio} = Chatterbex.generate("No network is needed.")
    :ok = Chatterbex.Audio.write(audio, "offline.wav")
    IO.puts("spoken")
    """

    {output, status} = TestHelp.elixir(code, wrapper: @unshare, cd: dir)
    assert status == 0, output
    assert output =~ "network: enetunreach"
    assert output =~ "spoken"
    assert {:ok, audio} = Chatterbex.Audio.read(Path.join(dir, "offline.wav"))
    assert Chatterbex.Audio.duration(audio) > 0.5
  end
end
