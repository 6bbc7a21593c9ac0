defmodule Chatterbex.Doctor.Resources do
  @moduledoc false
  # Free disk space and memory, in bytes. A figure that the system does not report is `nil`.

  alias Chatterbex.Setup.Subprocess

  # A network file system that does not answer must not block the doctor.
  @timeout 5_000

  @doc """
  The free space on the disk that holds `path`, which need not exist.
  """
  @spec disk(Path.t()) :: non_neg_integer | nil
  def disk(path) do
    with program when is_binary(program) <- System.find_executable("df"),
         {:ok, output} <- Subprocess.run(program, ["-Pk", existing(path)], timeout: @timeout) do
      free(output)
    else
      _none -> nil
    end
  end

  # POSIX: a heading, then one line whose fourth field is the free kilobytes.
  @doc false
  @spec free(String.t()) :: non_neg_integer | nil
  def free(output) do
    with [_filesystem, _blocks, _used, free | _rest] <-
           output |> Subprocess.last_lines(1) |> List.first("") |> String.split(),
         {kilobytes, ""} <- Integer.parse(free) do
      kilobytes * 1024
    else
      _other -> nil
    end
  end

  @doc """
  The machine's memory, how much of it is available, and how much this process may use (its cgroup's limit).
  """
  @spec memory() :: %{
          total: pos_integer | nil,
          available: non_neg_integer | nil,
          limit: pos_integer | nil
        }
  def memory do
    case File.read("/proc/meminfo") do
      {:ok, text} ->
        text |> linux() |> Map.put(:limit, limit())

      {:error, _no_linux} ->
        Map.put(macos(output("sysctl", ["-n", "hw.memsize"]), output("vm_stat", [])), :limit, nil)
    end
  end

  @doc false
  @spec linux(String.t()) :: map
  def linux(meminfo),
    do: %{total: kilobytes(meminfo, "MemTotal"), available: kilobytes(meminfo, "MemAvailable")}

  defp kilobytes(meminfo, name) do
    case Regex.run(~r/^#{name}:\s+(\d+) kB/m, meminfo) do
      [_line, kilobytes] -> String.to_integer(kilobytes) * 1024
      nil -> nil
    end
  end

  @doc false
  @spec macos(String.t(), String.t()) :: map
  def macos(memsize, vm_stat) do
    total = with {total, _rest} <- Integer.parse(memsize), do: total, else: (:error -> nil)

    # macOS can provide these pages at once: free, inactive and speculative ones.
    pages =
      for [_line, pages] <- Regex.scan(~r/^Pages (?:free|inactive|speculative):\s+(\d+)\./m, vm_stat),
          do: pages

    available =
      case Regex.run(~r/page size of (\d+) bytes/, vm_stat) do
        [_line, size] -> (pages |> Enum.map(&String.to_integer/1) |> Enum.sum()) * String.to_integer(size)
        nil -> nil
      end

    %{total: total, available: available}
  end

  defp limit do
    with {:ok, text} <- File.read("/sys/fs/cgroup/memory.max"), {limit, "\n"} <- Integer.parse(text) do
      limit
    else
      _none_or_max -> nil
    end
  end

  defp output(name, arguments) do
    with program when is_binary(program) <- System.find_executable(name),
         {:ok, output} <- Subprocess.run(program, arguments, timeout: @timeout) do
      output
    else
      _none -> ""
    end
  end

  defp existing(path), do: if(path == "/" or File.exists?(path), do: path, else: existing(Path.dirname(path)))
end
