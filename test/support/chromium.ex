defmodule Chatterbex.Chromium do
  @moduledoc """
  Chromium without a window, driven over its debugging pipe.

  Chromium reads commands from its file descriptor 3 and writes answers to 4, which is how a port with `:nouse_stdio`
  talks. When the port or the VM ends, so does Chromium.
  """

  use GenServer

  @timeout 60_000
  @patience 30_000
  @programs ~w(chromium chromium-browser google-chrome google-chrome-stable) ++
              ["/Applications/Chromium.app/Contents/MacOS/Chromium"] ++
              ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"]

  @doc """
  The program: what `CHATTERBEX_CHROMIUM` names, or one that is installed; `nil` if there is none.
  """
  def program,
    do: System.get_env("CHATTERBEX_CHROMIUM") || Enum.find_value(@programs, &System.find_executable/1)

  @doc """
  Why the tests in a browser cannot run here, for `@moduletag skip:`; `false` where they can.
  """
  def missing do
    if program(), do: false, else: "Chromium is not installed: `bin/test` does that where it can"
  end

  @doc """
  Starts a browser. A page may sound once somebody has used it, as for most people.

  ## Options

    * `:dir` - a folder for its files
    * `:arguments` - more of Chromium's command line
  """
  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @doc """
  Opens a page. `:before` is JavaScript that runs before the page's own.
  """
  def open(browser, url, options \\ []) do
    {:ok, %{"targetId" => target}} = command(browser, "Target.createTarget", %{url: "about:blank"})

    {:ok, %{"sessionId" => session}} =
      command(browser, "Target.attachToTarget", %{targetId: target, flatten: true})

    page = %{browser: browser, session: session, target: target}
    for domain <- ~w(Page Runtime Network), do: {:ok, _} = call(page, domain <> ".enable")

    if source = options[:before],
      do: {:ok, _} = call(page, "Page.addScriptToEvaluateOnNewDocument", %{source: source})

    go(page, url)
  end

  @doc """
  Goes to an address, and waits until it is loaded.
  """
  def go(page, url) do
    :ok = GenServer.call(page.browser, {:forget, page.session})
    {:ok, _} = call(page, "Page.navigate", %{url: url})
    _event = await(page, "Page.loadEventFired")
    page
  end

  @doc """
  The value of JavaScript, which may `await`. It raises what JavaScript throws.

  `gesture: true` runs it as if somebody had clicked.
  """
  def js(page, code, options \\ []) do
    parameters = %{
      expression: "(async () => {#{code}})()",
      awaitPromise: true,
      returnByValue: true,
      userGesture: options[:gesture] == true
    }

    case call(page, "Runtime.evaluate", parameters) do
      {:ok, %{"exceptionDetails" => details}} -> raise "JavaScript: #{thrown(details)}"
      {:ok, %{"result" => result}} -> result["value"]
      {:error, message} -> raise message
    end
  end

  @doc """
  Clicks on the middle of the element that a selector names, with a mouse.
  """
  def click(page, selector) do
    %{"x" => x, "y" => y} =
      js(page, """
      const element = document.querySelector(#{Chatterbex.JSON.encode(selector)})
      element.scrollIntoView({block: "center"})
      const box = element.getBoundingClientRect()
      return {x: box.x + box.width / 2, y: box.y + box.height / 2}
      """)

    for type <- ~w(mousePressed mouseReleased) do
      {:ok, _} =
        call(page, "Input.dispatchMouseEvent", %{type: type, x: x, y: y, button: "left", clickCount: 1})
    end

    :ok
  end

  @doc """
  Waits until JavaScript gives a value that counts as true, and returns it; `true` for an object.
  """
  def until(page, condition) do
    js(page, """
    for (const end = Date.now() + #{@patience}; Date.now() < end;) {
      const value = await (#{condition})
      if (value) return typeof value === "object" ? true : value
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    throw new Error("it never came: " + #{Chatterbex.JSON.encode(condition)})
    """)
  end

  @doc """
  A picture of the page, as PNG.
  """
  def screenshot(page) do
    {:ok, %{"data" => data}} = call(page, "Page.captureScreenshot")
    Base.decode64!(data)
  end

  @doc """
  What went wrong in the page: exceptions that nobody caught, and errors of its console.
  """
  def faults(page) do
    for %{"method" => method, "params" => params} <- GenServer.call(page.browser, {:events, page.session}),
        fault = fault(method, params),
        do: fault
  end

  defp fault("Runtime.exceptionThrown", %{"exceptionDetails" => details}), do: thrown(details)

  defp fault("Runtime.consoleAPICalled", %{"type" => "error", "args" => arguments}),
    do: Enum.map_join(arguments, " ", &to_string(&1["value"] || &1["description"]))

  defp fault(_method, _params), do: nil

  defp thrown(details), do: get_in(details, ["exception", "description"]) || details["text"]

  @doc """
  Sends a command of the DevTools protocol to a page.
  """
  def call(page, method, params \\ %{}), do: command(page.browser, method, params, page.session)

  defp command(browser, method, params, session \\ nil),
    do: GenServer.call(browser, {:command, method, params, session}, @timeout)

  defp await(page, method), do: GenServer.call(page.browser, {:await, method, page.session}, @timeout)

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)

    # Chromium's own sandbox refuses to run as root.
    sandbox = if match?({"0\n", 0}, System.cmd("id", ["-u"])), do: ["--no-sandbox"], else: []

    arguments =
      ~w(--headless=new --remote-debugging-pipe --no-first-run --disable-gpu --disable-dev-shm-usage) ++
        ~w(--autoplay-policy=document-user-activation-required --window-size=900,700) ++
        ["--user-data-dir=" <> Keyword.fetch!(options, :dir)] ++
        sandbox ++ Keyword.get(options, :arguments, []) ++ ["about:blank"]

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :nouse_stdio,
        :binary,
        :exit_status,
        args: ["-c", ~s(exec "$0" "$@" >/dev/null 2>&1), program() | arguments]
      ])

    {:ok, %{port: port, next: 1, callers: %{}, awaiting: [], events: [], rest: []}}
  end

  @impl true
  def handle_call({:command, method, params, session}, from, state) do
    message = %{id: state.next, method: method, params: params}
    message = if session, do: Map.put(message, :sessionId, session), else: message
    Port.command(state.port, [Chatterbex.JSON.encode(message), 0])
    {:noreply, %{state | next: state.next + 1, callers: Map.put(state.callers, state.next, from)}}
  end

  def handle_call({:await, method, session}, from, state) do
    case Enum.find(state.events, &(&1["method"] == method and &1["sessionId"] == session)) do
      nil -> {:noreply, %{state | awaiting: [{method, session, from} | state.awaiting]}}
      event -> {:reply, event, state}
    end
  end

  def handle_call({:events, session}, _from, state),
    do: {:reply, state.events |> Enum.filter(&(&1["sessionId"] == session)) |> Enum.reverse(), state}

  def handle_call({:forget, session}, _from, state),
    do: {:reply, :ok, %{state | events: Enum.reject(state.events, &(&1["sessionId"] == session))}}

  @impl true
  def handle_info({port, {:data, data}}, %{port: port} = state) do
    # A long answer comes in many pieces.
    case :binary.split(data, <<0>>, [:global]) do
      [part] ->
        {:noreply, %{state | rest: [state.rest, part]}}

      [first | more] ->
        {whole, [last]} = Enum.split([IO.iodata_to_binary([state.rest, first]) | more], -1)
        {:noreply, Enum.reduce(whole, %{state | rest: last}, &hear/2)}
    end
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state),
    do: {:stop, {:chromium_ended, status}, state}

  def handle_info({:EXIT, _port, _reason}, state), do: {:noreply, state}

  # Chromium writes into its folder until it has ended.
  @impl true
  def terminate(_reason, %{port: port} = state) do
    if Port.info(port) do
      Port.command(port, [Chatterbex.JSON.encode(%{id: state.next, method: "Browser.close", params: %{}}), 0])

      receive do
        {^port, {:exit_status, _status}} -> :ok
      after
        5_000 -> :ok
      end
    end
  end

  defp hear(json, state) do
    {:ok, message} = Chatterbex.JSON.decode(json)

    case message do
      %{"id" => id} ->
        {from, callers} = Map.pop!(state.callers, id)
        if from, do: GenServer.reply(from, answer(message))
        %{state | callers: callers}

      event ->
        {now, later} =
          Enum.split_with(state.awaiting, fn {method, session, _from} ->
            event["method"] == method and event["sessionId"] == session
          end)

        for {_method, _session, from} <- now, do: GenServer.reply(from, event)
        %{state | awaiting: later, events: [event | state.events]}
    end
  end

  defp answer(%{"result" => result}), do: {:ok, result}
  defp answer(%{"error" => %{"message" => message}}), do: {:error, message}
end
