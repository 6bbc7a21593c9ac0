defmodule Chatterbex.Setup.NvidiaDriver do
  @moduledoc false
  # NVIDIA's driver and cards, and which of the locked builds of PyTorch they can run.
  #
  # A build for CUDA 12 or 13 runs on the first driver of that CUDA version and on all newer ones, and on cards from a
  # certain compute capability on.

  alias Chatterbex.Setup.Subprocess

  defstruct file: nil, driver: nil, cards: []

  @typedoc """
  `file` shows that there is a driver. `driver` is its version, `nil` if it cannot be read. `cards` are the names and
  compute capabilities of the GPUs, empty if `nvidia-smi` does not report them.
  """
  @type t :: %__MODULE__{driver: [non_neg_integer] | nil, cards: [{String.t(), [non_neg_integer]}]}

  @version_file "/proc/driver/nvidia/version"

  # WSL 2 has the second one only.
  @files [@version_file, "/usr/lib/wsl/lib/libcuda.so.1"]
  @smi ["/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"]

  # The best first: the oldest driver and the lowest compute capability of each lock (priv/python/locks/torch.txt and
  # torch-cuda12.txt).
  @builds [
    %{name: :locked, cuda: 13, driver: [580], capability: [7, 5], architectures: ["x86_64", "aarch64"]},
    %{name: :cuda12, cuda: 12, driver: [525], capability: [7, 0], architectures: ["x86_64"]}
  ]

  @doc "The files that show that there is an NVIDIA driver."
  @spec files() :: [Path.t()]
  def files, do: @files

  @doc "The driver and cards of this machine; `nil` without a driver."
  @spec this() :: t | nil
  def this do
    file = Enum.find(@files, &File.exists?/1)
    file && look(file, @version_file, Enum.find(@smi, &File.exists?/1))
  end

  @doc "Reads the driver's version file and runs `nvidia-smi`. Each may be missing."
  @spec look(Path.t(), Path.t(), Path.t() | nil) :: t
  def look(file, version_file, smi) do
    cards = if smi, do: ask(smi), else: []
    # All cards have one driver.
    driver = Enum.find_value(cards, loaded(version_file), fn {_name, _capability, driver} -> driver end)

    %__MODULE__{
      file: file,
      driver: driver,
      cards: for({name, capability, _driver} <- cards, do: {name, capability})
    }
  end

  defp ask(smi) do
    arguments = ["--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]

    case Subprocess.run(smi, arguments, timeout: 15_000, stderr: :discard) do
      {:ok, output} -> output |> String.split("\n", trim: true) |> Enum.flat_map(&card/1)
      {:error, _no_answer} -> []
    end
  end

  defp card(line) do
    with [driver, capability, name] <- line |> String.split(",", parts: 3) |> Enum.map(&String.trim/1),
         [_ | _] = driver <- version(driver),
         [_ | _] = capability <- version(capability) do
      [{name, capability, driver}]
    else
      _other -> []
    end
  end

  # NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build
  defp loaded(path) do
    with {:ok, text} <- File.read(path),
         [_all, version] <- Regex.run(~r/^NVRM version:.*?\s(\d+(?:\.\d+)+)\s/m, text) do
      version(version)
    else
      _unreadable -> nil
    end
  end

  defp version(text) do
    if text =~ ~r/\A\d+(\.\d+)+\z/, do: text |> String.split(".") |> Enum.map(&String.to_integer/1)
  end

  @doc """
  The best locked build for a driver and its cards on a machine such as `"x86_64"`, and why it is that one; or why there
  is none. Unknown facts count as a fit: the test of PyTorch afterwards shows whether it does.
  """
  @spec build(t, String.t()) :: {:ok, map, String.t()} | {:error, String.t()}
  def build(%__MODULE__{} = nvidia, architecture) do
    [newest | _older] = builds = Enum.filter(@builds, &(architecture in &1.architectures))

    case Enum.find(builds, &(obstacle(nvidia, &1) == nil)) do
      nil -> {:error, refusal(nvidia, newest, List.last(builds))}
      ^newest -> {:ok, newest, found(nvidia)}
      older -> {:ok, older, obstacle(nvidia, newest)}
    end
  end

  defp obstacle(%{driver: driver} = nvidia, build) do
    cond do
      driver != nil and driver < build.driver ->
        "#{driver(driver)} is too old for CUDA #{build.cuda}, which needs #{dotted(build.driver)} or newer"

      nvidia.cards != [] and elem(best(nvidia), 1) < build.capability ->
        "#{best_card(nvidia)} is too old for PyTorch with CUDA #{build.cuda}, which needs compute capability " <>
          "#{dotted(build.capability)} or newer"

      true ->
        nil
    end
  end

  # A newer driver helps if only the driver is too old. Nothing helps an old card.
  defp refusal(nvidia, newest, oldest) do
    case obstacle(%{nvidia | cards: []}, oldest) do
      nil -> obstacle(nvidia, oldest)
      driver -> "#{driver}. Install driver #{dotted(newest.driver)} or newer"
    end
  end

  defp found(%{driver: nil, cards: []}), do: "NVIDIA's driver is there, and does not tell its version"
  defp found(%{driver: driver, cards: []}), do: driver(driver)
  defp found(%{driver: driver} = nvidia), do: "#{driver(driver)}, #{best_card(nvidia)}"

  defp driver(version), do: "NVIDIA driver #{dotted(version)}"

  defp best_card(nvidia) do
    {name, capability} = best(nvidia)
    "#{name} (compute capability #{dotted(capability)})"
  end

  defp best(nvidia), do: Enum.max_by(nvidia.cards, &elem(&1, 1))

  # One number stands for all releases that begin with it.
  defp dotted(version), do: Enum.join(version, ".")
end
