defmodule Chatterbex.Device.Probe do
  @moduledoc false
  # Looks at the devices, and tests them, with PyTorch in a separate process: importing it here would block the model
  # thread, and a driver that crashes that process does no harm.

  alias Chatterbex.{Configuration, JSON, Python}
  alias Chatterbex.Setup.{PackageProfile, Subprocess}

  @typedoc "What there is: see priv/python/provision/devices.py. Keys are strings; `torch` is `nil` without PyTorch."
  @type found :: %{torch: %{version: String.t(), seconds: float} | nil, devices: [map], facts: map}

  @typedoc """
  The result. `stopped` says how the process ended if it did not finish. Its last check is then the one that it was
  running, without an outcome.
  """
  @type tried :: %{
          checks: [%{name: String.t(), outcome: map | nil}],
          reason: String.t() | nil,
          stopped: String.t() | nil
        }

  @spec list(Python.t(), pos_integer) :: {:ok, found} | {:error, String.t()}
  def list(python, timeout) do
    {events, stopped} = run(python, ["list"], timeout)

    case events do
      %{"devices" => [found]} ->
        {:ok, %{torch: torch(events), devices: found["devices"], facts: found["facts"]}}

      _not_so_far ->
        {:error, "looking at the devices with PyTorch #{stopped || "gave no answer"}"}
    end
  end

  @spec attempt(Python.t(), String.t(), pos_integer) :: tried
  def attempt(python, device, timeout) do
    {events, stopped} = run(python, ["try", device], timeout)
    outcomes = for event <- events["check"] || [], into: %{}, do: {event["name"], Map.delete(event, "name")}

    %{
      checks:
        for(%{"name" => name} <- events["begin"] || [], do: %{name: name, outcome: Map.get(outcomes, name)}),
      reason: with([%{"reason" => reason}] <- events["done"], do: reason, else: (_none -> nil)),
      stopped: if(events["done"], do: nil, else: stopped || "ended without a word")
    }
  end

  defp torch(%{"torch" => [%{"version" => version, "seconds" => seconds}]}),
    do: %{version: version, seconds: seconds}

  defp torch(_none), do: nil

  # Its events by name, in order.
  defp run(python, arguments, timeout) do
    arguments = ["-I", PackageProfile.script("devices.py") | arguments]

    case Subprocess.run(python.program, arguments, timeout: timeout, env: Configuration.environment()) do
      {:ok, output} -> {events(output), nil}
      {:error, failure} -> {events(failure.output), stopped(failure)}
    end
  end

  defp events(output) do
    lines =
      for "{" <> _rest = line <- String.split(output, "\n"), {:ok, event} <- [JSON.decode(line)], do: event

    lines |> Enum.filter(&is_map_key(&1, "event")) |> Enum.group_by(& &1["event"], &Map.delete(&1, "event"))
  end

  defp stopped(%{why: {:timeout, milliseconds}}), do: "had not ended after #{div(milliseconds, 1000)} s"

  defp stopped(%{why: {:exit, status}, output: output}) do
    how = if status > 128, do: "was killed by signal #{status - 128}", else: "ended with exit code #{status}"

    said =
      output
      |> Subprocess.last_lines(20)
      |> Enum.reject(&(obituary?(&1) or String.starts_with?(&1, "{")))
      |> List.last()

    if said, do: "#{how} (#{String.slice(said, 0, 200)})", else: how
  end

  # The shell that runs the process adds this.
  defp obituary?(line) do
    line =~ ~r/\A(Aborted|Abort trap|Segmentation fault|Bus error|Killed|Illegal instruction)\b/
  end
end
