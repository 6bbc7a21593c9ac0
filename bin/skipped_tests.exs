# Loaded by bin/test beside ExUnit's own formatter: writes one line for each test that did not
# run, with the reason, to the file that CHATTERBEX_SKIPPED_TESTS names.
defmodule Chatterbex.SkippedTests do
  use GenServer

  @impl true
  def init(_options) do
    {:ok, File.open!(System.fetch_env!("CHATTERBEX_SKIPPED_TESTS"), [:write, :utf8])}
  end

  @impl true
  # Those in a browser are another leg of bin/test.
  def handle_cast({:test_finished, %{state: {:excluded, _reason}, tags: %{browser: true}}}, file), do: {:noreply, file}

  def handle_cast({:test_finished, %{state: {state, reason}} = test}, file) when state in [:skipped, :excluded] do
    IO.puts(file, "#{inspect(test.module)} #{test.name}: #{state}, #{reason}")
    {:noreply, file}
  end

  def handle_cast(_event, file), do: {:noreply, file}
end
