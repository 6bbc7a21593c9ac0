defmodule Chatterbex.Server.Crashes do
  @moduledoc false
  # What follows from the ends of a model's process: when the model is loaded again, when that is given up, and when a
  # text is to blame.
  #
  # SIGKILL and SIGTERM come from outside: the system that runs out of memory, or somebody who stops processes. A text may
  # be the cause of the first, so they count, but for less than a crash.

  alias Chatterbex.Peer

  # Milliseconds before the model is loaded again: none after work that was done, then doubled up to the most.
  @first 200
  @most 5_000

  # After as many ends in a row while loading, it is given up.
  @loads %{crash: 3, outside: 30}
  # After as many ends while it was spoken, a text is not tried again.
  @texts %{crash: 2, outside: 5}

  @signals %{
    4 => "SIGILL",
    6 => "SIGABRT",
    7 => "SIGBUS",
    8 => "SIGFPE",
    9 => "SIGKILL",
    11 => "SIGSEGV",
    15 => "SIGTERM"
  }

  defstruct row: 0, loads: []

  @typedoc "`row` counts ends with no success between them; `loads` are ends while loading, since it was loaded last."
  @type t :: %__MODULE__{row: non_neg_integer, loads: [Peer.reason()]}

  @doc """
  The process has ended, while it loaded the model or later. After how many milliseconds to load again.
  """
  @spec add(t, Peer.reason(), boolean) :: {non_neg_integer | :give_up, t}
  def add(%__MODULE__{} = crashes, reason, loading?) do
    loads = if loading?, do: [reason | crashes.loads], else: crashes.loads
    crashes = %{crashes | row: crashes.row + 1, loads: loads}

    if too_many?(crashes.loads, @loads),
      do: {:give_up, %__MODULE__{}},
      else: {delay(crashes.row), crashes}
  end

  @doc """
  The model is loaded. Should the process die before it has done anything, the pauses begin again, with the first one.
  """
  @spec loaded(t) :: t
  def loaded(crashes), do: %{crashes | row: min(crashes.row, 1), loads: []}

  defp delay(1), do: 0
  defp delay(row), do: min(@first * 2 ** min(row - 2, 20), @most)

  @doc """
  Whether a text that was being spoken at these ends is to blame.
  """
  @spec guilty?([Peer.reason()]) :: boolean
  def guilty?(deaths), do: too_many?(deaths, @texts)

  defp too_many?(ends, %{crash: crash, outside: outside}),
    do: Enum.count(ends, &(not outside?(&1))) >= crash or length(ends) >= outside

  defp outside?({:exit_status, status}), do: status in [128 + 9, 128 + 15]
  defp outside?(_failed), do: false

  @doc """
  An end in words, to follow "by".
  """
  @spec describe(Peer.reason()) :: String.t()
  def describe({:exit_status, status}) when status > 128,
    do: Map.get(@signals, status - 128, "signal #{status - 128}")

  def describe({:exit_status, status}), do: "exit status #{status}"
  def describe({:failed, what}), do: what
end
