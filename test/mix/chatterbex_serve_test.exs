defmodule Mix.Tasks.Chatterbex.ServeTest do
  # Not async: it changes settings that all tests share.
  use ExUnit.Case, async: false

  alias Chatterbex.HTTPClient
  alias Mix.Tasks.Chatterbex.Serve

  # In its own operating-system process, which runs until it is told to stop.
  defp serve(arguments, environment) do
    port =
      Port.open({:spawn_executable, System.find_executable("mix")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 1_000,
        args: ["chatterbex.serve" | arguments],
        env: for({name, value} <- environment, do: {String.to_charlist(name), String.to_charlist(value)})
      ])

    on_exit(fn ->
      with {:os_pid, pid} <- Port.info(port, :os_pid), do: System.cmd("kill", ["-KILL", "#{pid}"])
    end)

    port
  end

  defp line(port, pattern) do
    receive do
      {^port, {:data, {_end, line}}} ->
        case Regex.run(pattern, line) do
          nil -> line(port, pattern)
          found -> found
        end

      {^port, {:exit_status, status}} ->
        flunk("it ended with #{status}")
    after
      120_000 -> flunk("it said nothing that matches #{inspect(pattern)}")
    end
  end

  defp get(url, headers) do
    %URI{port: port, path: path} = URI.parse(url)
    {status, _headers, _body} = HTTPClient.request(port, "GET", path, headers: headers)
    status
  end

  test "listens, speaks, requires the key from the environment, and stops when told to" do
    port = serve(["--port", "0"], [{"CHATTERBEX_API_KEY", "secret"}, {"MIX_ENV", "test"}])
    [_all, url] = line(port, ~r{^Listening on (http://127\.0\.0\.1:\d+)\. The model is being loaded\.$})
    line(port, ~r/^Ready\.$/)

    assert get(url <> "/ready", []) == 200
    assert get(url <> "/v1/models", []) == 401
    assert get(url <> "/v1/models", [{"Authorization", "Bearer secret"}]) == 200

    {:os_pid, pid} = Port.info(port, :os_pid)
    {_output, 0} = System.cmd("kill", ["-TERM", "#{pid}"])
    assert_receive {^port, {:exit_status, 0}}, 60_000
  end

  test "reports errors before it does anything" do
    for {arguments, says} <- [
          {["--prot", "1"], ~r/unknown option --prot. Did you mean "--port"/},
          {["--port", "x"], ~r/--port does not accept "x"/},
          {["hello"], ~r/unexpected argument "hello"/},
          {["--ip", "0.0.0.0"], ~r/0.0.0.0 can be reached from other machines: set CHATTERBEX_API_KEY/},
          {["--ip", "127.0.0.x"], ~r/option :ip must be an address/},
          {["--port", "70000"], ~r/option :port must be a whole number from 0 to 65535/},
          {["--model", "none"], ~r/there is no model "none"/}
        ] do
      assert_raise Mix.Error, says, fn -> Serve.run(arguments) end
    end
  end

  setup do
    level = Logger.level()

    on_exit(fn -> Logger.configure(level: level) end)
  end
end
