# bin/test loads this in addition to ExUnit's own formatter. For each test that did not run, it writes a line with the
# reason to the file that CHATTERBEX_SKIPPED_TESTS names.
defmodule Chatterbex.SkippedTests do
  use GenServer

  @impl true
  def init(_options) do
    {:ok, File.open!(System.fetch_env!("CHATTERBEX_SKIPPED_TESTS"), [:write, :utf8])}
  end

  @impl true
  # Browser tests are a separate leg of bin/test.
  def handle_cast({:test_finished, %{state: {:excluded, _reason}, tags: %{browser: true}}}, file), do: {:noreply, file}

  def handle_cast({:test_finished, %{state: {state, reason}} = test}, file) when state in [:skipped, :excluded] do
    IO.puts(file, "#{inspect(test.module)} #{test.name}: #{state}, #{reason}")
    {:noreply, file}
  end

  def handle_cast(_event, file), do: {:noreply, file}
end
