defmodule Chatterbex.Native.Target do
  @moduledoc false
  # The kind of machine that libraries are for, named as Rust names it: "aarch64-apple-darwin".

  @cross ~w(TARGET_ARCH TARGET_VENDOR TARGET_OS TARGET_ABI)

  @typedoc "`cross?` is true if the variables of a cross-compiler, such as those of Nerves, name another machine."
  @type t :: %{name: String.t(), cross?: boolean}

  @doc """
  The target that `env` names, or else the one of a VM with this system architecture.
  """
  @spec detect(String.t(), %{String.t() => String.t()}) :: t
  def detect(architecture \\ architecture(), env \\ System.get_env()) do
    here = parse(architecture)
    told = for name <- @cross, value = env[name], value != "", into: %{}, do: {name, value}

    target =
      normalize(%{
        arch: told["TARGET_ARCH"] || here.arch,
        vendor: told["TARGET_VENDOR"] || here.vendor,
        os: told["TARGET_OS"] || here.os,
        abi: told["TARGET_ABI"] || here.abi
      })

    name = name(target)
    %{name: name, cross?: name != name(normalize(here))}
  end

  defp architecture, do: to_string(:erlang.system_info(:system_architecture))

  defp parse(architecture) do
    case String.split(architecture, "-", parts: 4) do
      [arch, "linux", abi] -> %{arch: arch, vendor: "unknown", os: "linux", abi: abi}
      [arch, vendor, os, abi] -> %{arch: arch, vendor: vendor, os: os, abi: abi}
      [arch, vendor, os] -> %{arch: arch, vendor: vendor, os: os, abi: nil}
      # What OTP says on Windows.
      ["win32"] -> %{arch: "x86_64", vendor: "pc", os: "windows", abi: "msvc"}
      _unknown -> %{arch: architecture, vendor: nil, os: nil, abi: nil}
    end
  end

  # The vendor says who built the VM, and macOS adds its version.
  defp normalize(target) do
    target = %{target | arch: arch(target.arch)}

    case target.os do
      "linux" <> _ -> %{target | vendor: "unknown"}
      "darwin" <> _ when target.arch == "arm" -> normalize(%{target | arch: "aarch64"})
      "darwin" <> _ -> %{target | vendor: "apple", os: "darwin", abi: nil}
      _other -> target
    end
  end

  defp arch("amd64"), do: "x86_64"
  defp arch("arm64"), do: "aarch64"
  defp arch("riscv64"), do: "riscv64gc"
  defp arch(arch), do: arch

  defp name(target) do
    [target.arch, target.vendor, target.os, target.abi] |> Enum.reject(&is_nil/1) |> Enum.join("-")
  end

  @doc """
  What a reader should know about a target that has no prebuilt libraries, or `""`.
  """
  @spec hint(String.t()) :: String.t()
  def hint(name) do
    cond do
      name =~ "musl" ->
        " PyTorch and ONNX Runtime do not run on musl either: models need a system with glibc, such as Debian."

      name =~ "windows" ->
        " Windows is not supported: use WSL 2."

      true ->
        ""
    end
  end
end
