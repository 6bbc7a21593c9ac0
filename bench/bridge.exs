Code.require_file("support.exs", __DIR__)

defmodule Bench.PortBridge do
  @moduledoc false
  # What a careful Port bridge does for a request: send a line of JSON, receive a line of JSON, decode base64.

  def open do
    {:ok, python} = Chatterbex.Python.find()
    script = Path.join(__DIR__, "port_bridge.py")
    Port.open({:spawn_executable, python.program}, [:binary, :stream, args: [script]])
  end

  def request(port, seconds) do
    Port.command(port, [~s({"id": 1, "text": "#{seconds}"}\n)])
    # Cut out by hand, as fast as the fastest possible JSON library: this favours the Port.
    [_before, rest] = port |> line([]) |> :binary.split(~s("samples": "))
    [samples, _after] = :binary.split(rest, ~s("))
    %Chatterbex.Audio{samples: Base.decode64!(samples), sample_rate: 24_000}
  end

  defp line(port, parts) do
    receive do
      {^port, {:data, part}} ->
        if :binary.last(part) == ?\n,
          do: IO.iodata_to_binary(Enum.reverse([part | parts])),
          else: line(port, [part | parts])
    after
      30_000 -> raise "the Port did not answer"
    end
  end
end

Bench.title("The bridge: a request to a model that does nothing")

Application.put_env(:chatterbex, :models, idle: [python: "idle_model:IdleModel", path: __DIR__])
server = Bench.start(:idle)
port = Bench.PortBridge.open()

for {what, seconds} <- [{"a short text, no audio to speak of", "0.001"}, {"10 s of audio", "10"}] do
  times =
    Bench.pairs(
      [
        nif: fn -> {:ok, _audio} = Chatterbex.generate(server, seconds) end,
        port: fn -> Bench.PortBridge.request(port, seconds) end
      ],
      200
    )

  Bench.row("#{what}: NIF", Bench.ms(times.nif))
  Bench.row("#{what}: Port, JSON, base64", Bench.ms(times.port))
  Bench.row("#{what}: NIF / Port", Float.round(times.nif / times.port, 3))
end

Port.close(port)
GenServer.stop(server)
