defmodule Chatterbex.Doctor.Devices do
  @moduledoc false
  # The devices, each with the tests that ran on it, in separate processes.

  import Chatterbex.Doctor.CheckResult

  alias Chatterbex.{Device.Probe, Names, Python, Terminal}
  alias Chatterbex.Setup.{HostMachine, TorchPlan}

  def devices(%{torch: false} = context), do: {[], context}

  def devices(context) do
    case Probe.list(context.python, context.timeout) do
      {:ok, found} ->
        {Enum.flat_map(found.devices, &device(&1, found.facts, context)), context}

      {:error, why} ->
        {[new(:device, "devices", :failed, why, Python.setup_command(context.home, force: true))], context}
    end
  end

  defp device(%{"available" => true, "device" => name} = device, facts, context) do
    status = if device["warning"], do: :warning, else: :ok
    message = [about(device, facts), device["warning"]] |> Enum.reject(&is_nil/1) |> Enum.join("; ")
    details = device |> Map.put("facts", facts["torch"]) |> Names.atoms()
    [new(:device, "device #{name}", status, message, nil, details) | tried(name, context)]
  end

  defp device(%{"device" => name} = device, _facts, context) do
    kind = String.to_existing_atom(name)
    wanted = with %{device: wanted} <- TorchPlan.recorded(context.python.manifest), do: wanted
    # The reason of the Python side ends with the command for Mix.
    reason = String.replace(device["reason"], ~r/: run `[^`]*`$/, "")

    remedy =
      if match?({^kind, nil}, TorchPlan.choose(kind, HostMachine.this())),
        do: Python.setup_command(context.home, device: kind)

    status = if wanted == kind, do: :failed, else: :not_set_up
    [new(:device, "device #{name}", status, reason, remedy, Names.atoms(device))]
  end

  defp about(device, facts) do
    [
      device["name"],
      if(device["device"] == "mps" and facts["macos"], do: "macOS #{Enum.join(facts["macos"], ".")}"),
      if(device["cores"], do: "#{device["cores"]} cores"),
      if(device["memory"], do: Terminal.bytes(device["memory"]))
    ]
    |> Enum.reject(&is_nil/1)
    |> Enum.join(", ")
  end

  defp tried(name, context) do
    tried = Probe.attempt(context.python, name, context.timeout)
    checks = Enum.map(tried.checks, &outcome(&1, name, tried, context))

    # The process ended between two checks, or before the first.
    if tried.stopped != nil and Enum.all?(tried.checks, & &1.outcome),
      do:
        checks ++
          [new(:device, name, :failed, "the process that tried it #{tried.stopped}", remedy(name, context))],
      else: checks
  end

  defp outcome(%{name: check, outcome: nil}, name, tried, context) do
    new(:device, "#{name}: #{check}", :failed, "the process #{tried.stopped}", remedy(name, context))
  end

  defp outcome(%{name: check, outcome: outcome}, name, _tried, context) do
    case outcome do
      %{"ok" => true, "seconds" => seconds} ->
        new(
          :device,
          "#{name}: #{check}",
          :ok,
          "#{right(outcome)}, in #{duration(seconds)}",
          nil,
          Names.atoms(outcome)
        )

      %{"required" => false, "message" => message} ->
        message = "#{message}; models work without it"
        new(:device, "#{name}: #{check}", :warning, message, nil, Names.atoms(outcome))

      %{"message" => message} ->
        new(:device, "#{name}: #{check}", :failed, message, remedy(name, context), Names.atoms(outcome))
    end
  end

  # The comparison of the CPU and the device.
  defp right(%{"difference" => difference}) when difference > 0,
    do: "within #{:erlang.float_to_binary(difference / 1, scientific: 1)} of the CPU"

  defp right(_outcome), do: "right"

  defp remedy("cpu", context), do: Python.setup_command(context.home, force: true)

  defp remedy("mps", context) do
    "update macOS, or take another PyTorch (#{Python.setup_command(context.home, device: :mps, torch: "VERSION")}); " <>
      "until then models run on the CPU"
  end

  defp remedy(_cuda, _context), do: "look at the driver (nvidia-smi); until then models run on the CPU"
end
