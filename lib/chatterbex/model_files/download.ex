defmodule Chatterbex.ModelFiles.Download do
  @moduledoc false
  # Fetches the files of a set with huggingface_hub, in a separate Python process, so that a transfer of gigabytes does
  # not hold up the model. The process ends with its caller.

  alias Chatterbex.{Error, JSON, Python}
  alias Chatterbex.ModelFiles.{HubCache, Set}
  alias Chatterbex.Setup.{HostMachine, PackageProfile, Subprocess, TorchPlan}

  # The process itself notices within seconds if the hub does not answer.
  @timeout :timer.hours(48)

  @type progress :: %{
          model: atom,
          status: :fetching | :checking | :waiting | :done,
          file: String.t(),
          repository: String.t(),
          file_bytes: non_neg_integer,
          file_total: non_neg_integer,
          bytes: non_neg_integer,
          total: non_neg_integer,
          message: String.t() | nil
        }

  @type done :: %{folders: [Path.t(), ...], fetched: non_neg_integer, total: non_neg_integer}

  @doc """
  Fetches what is missing. `options`: `:home`, `:force`, `:patience` (as the process takes it).
  """
  @spec run(Set.t(), keyword, (progress -> term)) :: {:ok, done} | {:error, Error.t()}
  def run(set, options, report) do
    with {:ok, python} <- Python.find(home: options[:home], profiles: ["torch"]) do
      arguments = ["-I", PackageProfile.script("model_files.py"), request(set, options)]
      on_line = &line(&1, set, report)

      case Subprocess.run(python.program, arguments, timeout: @timeout, on_line: on_line) do
        {:ok, output} -> ended(output, set, python.home)
        {:error, failure} -> ended(failure.output, set, python.home)
      end
    end
  end

  defp request(set, options) do
    sources =
      for source <- set.sources do
        {optional, required} = Enum.split_with(source.files, & &1.optional)

        %{
          repository: source.repository,
          revision: source.revision,
          files: Enum.map(required, & &1.name),
          optional: Enum.map(optional, & &1.name)
        }
      end

    JSON.encode(%{
      cache: HubCache.folder(),
      sources: sources,
      check: options[:force] == true,
      patience: Map.new(options[:patience] || %{})
    })
  end

  defp line(line, set, report) do
    with {:ok, %{"event" => "progress"} = event} <- JSON.decode(line) do
      report.(%{
        model: set.model,
        status: status(event["status"]),
        file: event["file"],
        repository: event["repository"],
        file_bytes: event["file_bytes"],
        file_total: event["file_total"],
        bytes: event["bytes"],
        total: event["total"],
        message: event["message"]
      })
    end
  end

  defp status("fetching"), do: :fetching
  defp status("checking"), do: :checking
  defp status("waiting"), do: :waiting
  defp status("done"), do: :done

  defp ended(output, set, home) do
    last = output |> Subprocess.last_lines(1) |> List.first("")

    case JSON.decode(last) do
      {:ok, %{"event" => "done"} = event} ->
        {:ok, %{folders: event["folders"], fetched: event["fetched"], total: event["total"]}}

      {:ok, %{"event" => "failed", "why" => "not_set_up"} = event} ->
        {:error, not_set_up(event["message"], home)}

      {:ok, %{"event" => "failed"} = event} ->
        {:error, failed(event, set)}

      _no_event ->
        {:error, crashed(output, set)}
    end
  end

  # The manifest says that it is there, but it is not.
  defp not_set_up(why, home) do
    command = Python.setup_command(home, device: TorchPlan.fitting_device(HostMachine.this()))
    details = %{home: home, command: command}
    Error.new(:not_set_up, "Chatterbex is not set up: #{why}. Run: #{command}", details)
  end

  @local ~w(disk_full file)

  # The details of a failure for programs.
  @details [:file, :repository, :status, :path, :needed, :free, :retry_after]

  defp failed(event, set) do
    reason = if event["why"] in @local, do: :file_error, else: :model_files_missing
    details = for name <- @details, value = event["#{name}"], into: %{}, do: {name, value}

    Error.new(
      reason,
      "the files of #{Set.describe(set)} were not fetched: #{event["message"]}",
      Map.merge(details, %{model: set.model, why: String.to_atom(event["why"])})
    )
  end

  defp crashed(output, set) do
    lines = output |> Subprocess.last_lines(8) |> Enum.reject(&String.starts_with?(&1, "{"))

    said =
      if lines == [],
        do: "it was stopped.",
        else: "it ended with\n" <> Enum.map_join(lines, "\n", &"  | #{&1}")

    Error.new(
      :model_files_missing,
      "the files of #{Set.describe(set)} were not fetched: #{said}\nThe downloaded part is kept; try again.",
      %{model: set.model, why: :crashed, output: lines}
    )
  end
end
