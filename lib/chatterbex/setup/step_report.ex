defmodule Chatterbex.Setup.StepReport do
  @moduledoc false
  # Runs the steps of a setup and reports each as an event. A report turns events into lines; the Mix task can also print
  # them as JSON.

  alias Chatterbex.{Error, Terminal}
  alias Chatterbex.Setup.{SetupFailure, SetupRun}

  @typedoc "`{:line, text}`; `{:begin, title}` of a step; `{:detail, text}`, how far it is; `{:step, map}` when it has ended."
  @type event :: {:line | :begin | :detail, String.t()} | {:step, map}
  @type report :: (event -> term)

  @typedoc """
  Looks at what was found so far, and says what to do: nothing (`:skip`), a change of the run or an error without a word, or
  `{name, title, work}`, where `work` returns `{:ok, changes, note}`, an error, or how a program failed.
  """
  @type step ::
          (SetupRun.t() -> :skip | {:ok, map} | {:error, Error.t()} | {atom, String.t(), (... -> tuple)})

  @doc "Runs steps, one after the other, until one fails."
  @spec run([step], SetupRun.t()) :: {:ok, SetupRun.t()} | {:error, Error.t()}
  def run(steps, run) do
    Enum.reduce_while(steps, {:ok, run}, fn step, {:ok, run} ->
      case perform(step.(run), run) do
        {:ok, changes} -> {:cont, {:ok, struct!(run, changes)}}
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
  end

  defp perform(:skip, _run), do: {:ok, %{}}
  defp perform({name, title, work}, run), do: timed(name, title, work, run)
  defp perform(result, _run), do: result

  defp timed(name, title, work, run) do
    started = now()
    run.report.({:begin, title})
    result = work.()
    {status, note} = if match?({:ok, _, _}, result), do: {:done, elem(result, 2)}, else: {:failed, "failed"}
    run.report.({:step, %{step: name, title: title, status: status, note: note, seconds: seconds(started)}})

    case result do
      {:ok, changes, _note} -> {:ok, changes}
      {:error, %Error{} = error} -> {:error, error}
      {:error, failure} -> {:error, SetupFailure.program(title, failure, run)}
    end
  end

  @doc "Milliseconds of a monotonic clock."
  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)

  @doc "The seconds since `started`."
  @spec seconds(integer) :: float
  def seconds(started), do: (now() - started) / 1000

  @doc "Seconds in words."
  @spec time(float) :: String.t()
  def time(seconds) when seconds < 60, do: :erlang.float_to_binary(seconds, decimals: 1) <> " s"
  def time(seconds), do: "#{div(trunc(seconds), 60)} min #{rem(trunc(seconds), 60)} s"

  @doc "A report that calls `puts` with one line for each step that has ended."
  @spec lines((String.t() -> term)) :: report
  def lines(puts), do: fn event -> with line when line != nil <- line(event), do: puts.(line) end

  defp line({:line, line}), do: line
  defp line({:step, step}), do: "* #{step.title}: #{step.note} (#{time(step.seconds)})"
  defp line(_not_yet), do: nil

  @doc """
  A report for a terminal: while a step runs, a line shows how far it is and how long it has taken.

  A process of its own redraws that line. It ends with the caller.
  """
  @spec live() :: report
  def live do
    owner = self()

    screen =
      spawn(fn ->
        Process.monitor(owner)
        screen(nil)
      end)

    fn event ->
      send(screen, {self(), event})
      receive do: ({^screen, :shown} -> :ok), after: (5_000 -> :ok)
    end
  end

  defp screen(step) do
    receive do
      {:DOWN, _monitor, :process, _owner, _reason} ->
        :ok

      {from, event} ->
        step = draw(event, step)
        send(from, {self(), :shown})
        screen(step)
    after
      if(step, do: 250, else: :infinity) -> step |> redraw() |> screen()
    end
  end

  defp draw({:begin, title}, _before), do: redraw(%{text: title, started: now()})
  defp draw({:detail, text}, step) when step != nil, do: redraw(%{step | text: text})

  defp draw(event, step) do
    Terminal.show("")
    lines(&IO.puts(:stderr, &1)).(event)
    if match?({:line, _line}, event), do: step
  end

  defp redraw(step) do
    Terminal.show("  #{String.slice(step.text, 0, 64)} ... #{time(seconds(step.started))}")
    step
  end
end
