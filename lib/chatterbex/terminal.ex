defmodule Chatterbex.Terminal do
  @moduledoc false
  # What people read: the terminal of a Mix task, and sizes in messages.

  @doc """
  Whether a file descriptor is a terminal. The VM cannot tell for standard error; test(1) can.
  """
  @spec terminal?(0..2) :: boolean
  def terminal?(descriptor) do
    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :nouse_stdio,
        :exit_status,
        args: ["-c", "test -t #{descriptor}"]
      ])

    receive do
      {^port, {:exit_status, status}} -> status == 0
    after
      1_000 -> false
    end
  end

  @doc """
  Replaces the line on the terminal.
  """
  @spec show(String.t()) :: :ok
  def show(line), do: IO.write(:stderr, "\r\e[K" <> line)

  @doc """
  A number of bytes as people read it: a kB is 1000 bytes, as on a disk's label. All messages use it.

      iex> Chatterbex.Terminal.bytes(3_210_000_000)
      "3.2 GB"

      iex> Chatterbex.Terminal.bytes(64_000_000)
      "64 MB"
  """
  @spec bytes(number) :: String.t()
  def bytes(count) when count < 1_000, do: "#{round(count)} bytes"
  def bytes(count) when count < 1_000_000, do: "#{round(count / 1_000)} kB"
  def bytes(count) when count < 1_000_000_000, do: "#{round(count / 1_000_000)} MB"
  def bytes(count), do: :erlang.float_to_binary(count / 1_000_000_000, decimals: 1) <> " GB"
end
