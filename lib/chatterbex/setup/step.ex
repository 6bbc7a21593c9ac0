defmodule Chatterbex.Setup.Step do
  @moduledoc false
  # One step of the setup. It reports what it does before it starts, then its result and how long it took.

  alias Chatterbex.Error

  @type report :: (String.t() -> term)

  @doc """
  Runs `work`, which returns `{:ok, value, note}` or an error, and reports it.
  """
  @spec run(report, String.t(), (() -> {:ok, value, String.t()} | {:error, Error.t()})) ::
          {:ok, value} | {:error, Error.t()}
        when value: term
  def run(report, title, work) do
    started = now()
    report.("* #{title}")

    case work.() do
      {:ok, value, note} ->
        report.("  #{note} (#{seconds(started)})")
        {:ok, value}

      {:error, %Error{} = error} ->
        report.("  failed after #{seconds(started)}")
        {:error, error}
    end
  end

  @doc """
  Reports a line within a step.
  """
  @spec note(report, String.t()) :: :ok
  def note(report, text) do
    report.("  #{text}")
    :ok
  end

  @doc """
  Milliseconds of a monotonic clock.
  """
  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)

  @doc """
  The time since `started`, to read.
  """
  @spec seconds(integer) :: String.t()
  def seconds(started), do: :erlang.float_to_binary((now() - started) / 1000, decimals: 1) <> " s"
end
