defmodule Chatterbex.MpsScenarios do
  @moduledoc """
  The model `:nano` on the simulated MPS device (test/python/simulated_mps), in the Python of a VM.

  The device is put into place before a model is loaded, on the thread that runs models, and changes PyTorch for all that
  runs there later. So this is for a VM of its own: see `outcomes/2`.
  """

  alias Chatterbex.{Runtime, TestHelp}

  @text "Hello there."
  @request [seed: 7, max_tokens: 6]

  @doc """
  What each request says, and how.
  """
  def request, do: {@text, @request}

  # With random weights, speech never ends, and a warning says so.
  @expected "were cut short after"

  @doc """
  Why there is no simulated device here, for `@tag skip:`; `false` where there is.
  """
  def unavailable do
    cond do
      reason = TestHelp.no_chatterbox() -> reason
      :os.type() == {:unix, :darwin} -> "PyTorch has the real MPS here, and none can be simulated"
      !Enum.any?([System.get_env("CXX", ""), "c++", "g++"], &System.find_executable/1) -> "no C++ compiler"
      true -> false
    end
  end

  @doc """
  Runs scenarios in its own VM, and returns what came of each: a map from name to outcome.

  A scenario is a server and its requests, one after another:

    * `:fallback` - the server's option
    * `:load` - what is to fail while the model is loaded: see simulated_mps/faults.py. Default: `[]`
    * `:requests` - the same for each request

  An outcome is what loading gave, `:ready`, and for each request a map:

    * `:spoken` - what it gave, and `:marked`, whether a watermark is in it
    * `:info` - what `Chatterbex.info/1` says after it
    * `:walked` - where the parts of the model are, by walking through all of its tensors
    * `:log`, `:events` - the warnings and the fallbacks that came with it
  """
  def outcomes(scenarios, folder) do
    [given, gotten, faults] = for name <- ~w(given gotten faults), do: Path.join(folder, name)
    File.write!(given, :erlang.term_to_binary({scenarios, TestHelp.checkpoint(:nano)}))

    code = "#{inspect(__MODULE__)}.run(#{inspect(given)}, #{inspect(gotten)}, #{inspect(faults)})"
    {output, status} = TestHelp.elixir(code, cd: folder)

    with {:ok, outcomes} <- File.read(gotten) do
      :erlang.binary_to_term(outcomes)
    else
      {:error, _none} -> raise "the VM with the simulated device ended with status #{status}:\n#{output}"
    end
  end

  @doc false
  def run(given, gotten, faults) do
    {scenarios, checkpoint} = given |> File.read!() |> :erlang.binary_to_term()
    System.put_env("CHATTERBEX_SIMULATED_MPS", faults)

    Application.put_env(:chatterbex, :models,
      fake: [python: "fake_model:FakeModel", path: TestHelp.python_tests()]
    )

    {:ok, _apps} = Application.ensure_all_started(:chatterbex)
    listen()

    {:ok, fake} = Chatterbex.start_link(model: :fake)
    evaluate(fake, "__import__('simulated_mps.autoinstall')")
    # The warm-up of 11 seconds of speech takes most of a minute here.
    evaluate(fake, "setattr(__import__('chatterbex.models.passes', fromlist=['']), '_WARM_UP', 10)")

    outcomes =
      Map.new(scenarios, fn {name, scenario} ->
        {name, outcome(scenario, %{checkpoint: checkpoint, faults: faults, fake: fake})}
      end)

    File.write!(gotten, :erlang.term_to_binary(outcomes))
  end

  defp outcome(scenario, context) do
    fail(scenario[:load] || [], context)
    options = [model: :nano, device: "mps", checkpoint: context.checkpoint, fallback: scenario[:fallback]]
    {:ok, server} = Chatterbex.start_link(options)
    ready = Chatterbex.await_ready(server: server)

    requests =
      for faults <- scenario[:requests] do
        fail(faults, context)
        spoken = Chatterbex.generate(server, @text, @request)
        walked = walk(server)
        {:ok, info} = Chatterbex.info(server: server)
        # Python's log lines come through this process.
        :sys.get_state(Runtime)

        %{
          spoken: spoken,
          marked: marked?(spoken, server),
          walked: walked,
          info: info,
          log: flush(:log),
          events: flush(:event)
        }
      end

    :ok = Chatterbex.stop(server: server)
    %{ready: ready, requests: requests}
  end

  # As the Python side finds it now; `Chatterbex.info/1` has what it was told.
  defp walk(server) do
    with model_id when model_id != nil <- :sys.get_state(server).model_id do
      {:ok, info} = Runtime.ask(%{"op" => "info", "model_id" => model_id}, 60_000)
      Chatterbex.Names.atoms(info["components"])
    end
  end

  defp marked?({:ok, audio}, server) do
    arguments = %{"samples" => {:bytes, audio.samples}, "sample_rate" => audio.sample_rate}
    TestHelp.call_model(server, "watermarked", arguments)["watermarked"]
  end

  defp marked?({:error, _error}, _server), do: false

  # The device looks at the file whenever it works.
  defp fail(faults, context) do
    new = context.faults <> ".new"
    File.write!(new, Chatterbex.JSON.encode(%{"faults" => Enum.map(faults, &Map.new/1)}))
    File.rename!(new, context.faults)
  end

  defp evaluate(fake, expression) do
    {:ok, audio} = Chatterbex.generate(fake, "eval: #{expression}")
    audio.metadata["value"]
  end

  ## The log meanwhile

  defp listen do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{level: :warning, config: %{listener: self()}})

    :telemetry.attach_many(
      __MODULE__,
      [[:chatterbex, :device, :fallback]],
      &__MODULE__.handle_event/4,
      self()
    )
  end

  @doc false
  def log(%{msg: message}, %{config: %{listener: listener}}) do
    text =
      case message do
        {:string, text} -> IO.chardata_to_string(text)
        other -> inspect(other)
      end

    unless text =~ @expected, do: send(listener, {:log, text})
  end

  @doc false
  def handle_event(_event, _measurements, metadata, listener),
    do: send(listener, {:event, Map.delete(metadata, :server)})

  defp flush(kind) do
    receive do
      {^kind, what} -> [what | flush(kind)]
    after
      0 -> []
    end
  end
end
