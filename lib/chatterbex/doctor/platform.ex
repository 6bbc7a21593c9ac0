defmodule Chatterbex.Doctor.Platform do
  @moduledoc false
  # The machine and the VM: versions, native libraries, disk, memory, settings.

  import Chatterbex.Doctor.CheckResult

  alias Chatterbex.{Configuration, Doctor.Resources, ModelFiles, Native, Terminal}
  alias Chatterbex.Native.Library

  # With less, a model's files or a package no longer fit.
  @little_disk 2_000_000_000

  # The memory that the larger models need to load and speak.
  @little_memory 4_000_000_000

  def machine(context) do
    architecture = to_string(:erlang.system_info(:system_architecture))
    versions = "Elixir #{System.version()}, OTP #{System.otp_release()}, #{architecture}"
    chatterbex = Configuration.version()

    details = %{
      elixir: System.version(),
      otp: System.otp_release(),
      architecture: architecture,
      schedulers: System.schedulers_online()
    }

    {[
       new(:system, "Chatterbex", :ok, chatterbex, nil, %{version: chatterbex}),
       new(:system, "Elixir", :ok, versions, nil, details)
     ], context}
  end

  @doc """
  The libraries that need no Python. The third one is tested when Python's library is open.
  """
  def native(context) do
    # Both calls only load the library.
    calls = [audio: fn -> Native.Audio.pcm16("") end, libpython: fn -> Native.LibPython.open("") end]
    {for({name, call} <- calls, do: library(name, call.())), context}
  end

  @doc """
  The result of loading a native library, from the answer of its function.
  """
  def library(name, answer) do
    file = "#{Library.path(name)}.so"

    case answer do
      {:error, {:native_not_loaded, message, details}} ->
        [message | remedy] = String.split(message, ". ", parts: 2)
        new(:native, "native #{name}", :failed, message, List.first(remedy), details)

      _loaded ->
        new(:native, "native #{name}", :ok, "#{file} loads", nil, %{library: file})
    end
  end

  def resources(context) do
    disks = [
      disk("home", context.home, "free some space, or name another folder in CHATTERBEX_HOME"),
      disk("model files", ModelFiles.cache_folder(), "free some space, or name another folder in HF_HOME")
    ]

    {disks ++ [memory(context)], context}
  end

  defp disk(what, path, remedy) do
    free = Resources.disk(path)
    details = %{path: path, free: free}

    cond do
      free == nil ->
        new(:disk, "disk for #{what}", :warning, "df does not tell what is free in #{path}", nil, details)

      free < @little_disk ->
        new(
          :disk,
          "disk for #{what}",
          :warning,
          "only #{Terminal.bytes(free)} free in #{path}",
          remedy,
          details
        )

      true ->
        new(:disk, "disk for #{what}", :ok, "#{Terminal.bytes(free)} free in #{path}", nil, details)
    end
  end

  defp memory(context) do
    memory = Resources.memory()

    limited =
      if memory.limit, do: ", of which this process may have #{Terminal.bytes(memory.limit)}", else: ""

    message = "#{amount(memory.total)}#{limited}, #{amount(memory.available)} available"

    usable =
      [memory.total, memory.limit, memory.available] |> Enum.reject(&is_nil/1) |> Enum.min(fn -> nil end)

    cond do
      usable == nil ->
        new(:memory, "memory", :warning, "the system does not tell how much there is", nil, memory)

      context.torch and usable < @little_memory ->
        new(:memory, "memory", :warning, message, little_memory(), memory)

      true ->
        new(:memory, "memory", :ok, message, nil, memory)
    end
  end

  defp amount(nil), do: "unknown"
  defp amount(bytes), do: Terminal.bytes(bytes)

  defp little_memory,
    do:
      "the larger Chatterbox models want #{Terminal.bytes(@little_memory)}: take :nano, or end other programs"

  @prefixes ~w(CHATTERBEX_ PYTORCH_ HF_ HUGGINGFACE_ CUDA_ OMP_NUM_THREADS XDG_CACHE_HOME)

  def settings(context) do
    settings =
      for {name, value} <- System.get_env() |> Map.merge(Configuration.environment()) |> Enum.sort(),
          String.starts_with?(name, @prefixes) and String.valid?(value),
          do: {name, if(name =~ ~r/TOKEN|SECRET|KEY/, do: "(set)", else: value)}

    case settings do
      [] ->
        {[], context}

      settings ->
        message = Enum.map_join(settings, "\n", fn {name, value} -> "#{name}=#{value}" end)
        {[new(:settings, "settings", :ok, message, nil, Map.new(settings))], context}
    end
  end
end
