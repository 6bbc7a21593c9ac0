defmodule Chatterbex.Setup.StepReportTest do
  # Alone: it captures stderr, which all tests share.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias Chatterbex.Error
  alias Chatterbex.Setup.{SetupRun, StepReport}

  defp run(steps, report) do
    {:ok, run} = SetupRun.new(home: "/srv/speech", on_event: report)
    StepReport.run(steps, run)
  end

  defp steps do
    [
      fn _run -> :skip end,
      fn _run -> {:ok, %{reuse: true}} end,
      fn run -> {:packages, "installing", fn -> detail(run) end} end,
      fn %{force: true} ->
        {:check, "checking", fn -> {:error, %{tool: "uv", why: {:exit, 2}, output: "no"}} end}
      end
    ]
  end

  defp detail(run) do
    run.report.({:detail, "downloaded 1 of 2 MB"})
    run.report.({:line, "PyTorch is not the locked one"})
    {:ok, %{force: true}, "2 packages"}
  end

  test "what one step finds, the next one knows, and a program that fails ends the run" do
    test = self()
    assert {:error, %Error{reason: :not_set_up, message: message}} = run(steps(), &send(test, &1))
    assert message =~ "checking failed: uv ended with exit code 2. The last lines of uv:\n  | no\n"
    assert_received {:begin, "installing"}
    assert_received {:detail, "downloaded 1 of 2 MB"}
    assert_received {:step, %{step: :packages, status: :done, note: "2 packages", seconds: seconds}}
    assert is_float(seconds)
    assert_received {:step, %{step: :check, status: :failed}}
  end

  test "without a terminal there is one line for each step that has ended" do
    test = self()
    run(steps(), StepReport.lines(&send(test, {:line, &1})))

    assert [
             "PyTorch is not the locked one",
             "* installing: 2 packages (" <> _time,
             "* checking: failed (" <> _more
           ] = Chatterbex.SetupHelp.lines()
  end

  test "on a terminal, a line that is redrawn comes before each of them" do
    text = capture_io(:stderr, fn -> run(steps(), StepReport.live()) end)

    assert [
             "\r\e[K  installing ... 0.0 s",
             "\r\e[K  downloaded 1 of 2 MB ... 0." <> _,
             "\r\e[KPyTorch is not the locked one\n\r\e[K* installing: 2 packages (0.0 s)\n",
             "\r\e[K  checking ... 0.0 s",
             "\r\e[K* checking: failed (0.0 s)\n"
           ] = Regex.scan(~r/(\r\e\[K[^\r\n]*\n)+|\r\e\[K[^\r\n]+/, text) |> Enum.map(&hd/1)
  end

  test "the time in words" do
    assert Enum.map([0.04, 59.94, 60.0, 3_723.5], &StepReport.time/1) == [
             "0.0 s",
             "59.9 s",
             "1 min 0 s",
             "62 min 3 s"
           ]
  end
end
