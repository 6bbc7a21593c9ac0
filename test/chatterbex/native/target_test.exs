defmodule Chatterbex.Native.TargetTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Native.Target

  defp name(architecture, env \\ %{}), do: Target.detect(architecture, env).name

  test "the vendor and the version in what OTP says do not matter" do
    for vendor <- ~w(pc unknown redhat alpine),
        do: assert(name("x86_64-#{vendor}-linux-gnu") == "x86_64-unknown-linux-gnu")

    assert name("x86_64-linux-gnu") == "x86_64-unknown-linux-gnu"
    assert name("amd64-portbld-freebsd14.1") == "x86_64-portbld-freebsd14.1"
    assert name("aarch64-alpine-linux-musl") == "aarch64-unknown-linux-musl"
    assert name("aarch64-apple-darwin23.6.0") == "aarch64-apple-darwin"
    assert name("arm-apple-darwin23.6.0") == "aarch64-apple-darwin"
    assert name("x86_64-apple-darwin22.1.0") == "x86_64-apple-darwin"
    assert name("riscv64-unknown-linux-gnu") == "riscv64gc-unknown-linux-gnu"
    assert name("win32") == "x86_64-pc-windows-msvc"
    assert name("s390") == "s390"
  end

  test "the variables of a cross-compiler name another machine" do
    nerves = %{"TARGET_ARCH" => "aarch64", "TARGET_OS" => "linux", "TARGET_ABI" => "gnu"}

    assert Target.detect("x86_64-pc-linux-gnu", nerves) ==
             %{name: "aarch64-unknown-linux-gnu", cross?: true}

    assert Target.detect("aarch64-apple-darwin23.6.0", nerves) ==
             %{name: "aarch64-unknown-linux-gnu", cross?: true}

    assert Target.detect("aarch64-unknown-linux-gnu", nerves) ==
             %{name: "aarch64-unknown-linux-gnu", cross?: false}

    assert Target.detect("x86_64-pc-linux-gnu", %{"TARGET_ARCH" => ""}).cross? == false
  end

  test "this machine has a target" do
    assert %{name: name, cross?: false} = Target.detect() |> Map.put(:cross?, false)
    assert name =~ ~r/^\w+-\w+-\w+/
  end
end
