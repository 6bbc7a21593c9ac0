defmodule Chatterbex.Server.Crashes do
  @moduledoc false
  # What to do when a model's process dies: when to load the model again, when to give up, and when to blame a text.
  #
  # SIGKILL and SIGTERM come from outside: from a system that runs out of memory, or from a user. They say little about
  # the model, so no number of them ends the loading; `load_timeout` does. But a text may have used up the memory, so they
  # count against it, for less than a crash.

  alias Chatterbex.Peer

  # Milliseconds before the model is loaded again: none after successful work, then doubled up to the maximum.
  @first 200
  @most 5_000

  # Crashes in a row while loading after which the server stops trying.
  @crashes 3
  # After this number of deaths with a text, the text is not tried again.
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

  defstruct row: 0, loads: 0, crashes: 0, last: nil

  @typedoc """
  `row` counts ends with no success between them. `loads` counts ends while loading since the model was loaded last,
  `crashes` those that did not come from outside, and `last` is the last of them.
  """
  @type t :: %__MODULE__{
          row: non_neg_integer,
          loads: non_neg_integer,
          crashes: non_neg_integer,
          last: Peer.reason() | nil
        }

  @doc """
  Records the end of the process, while it loaded the model or later. Returns the milliseconds before the next load.
  """
  @spec add(t, Peer.reason(), boolean) :: {non_neg_integer | :give_up, t}
  def add(%__MODULE__{} = crashes, reason, loading?) do
    crashes = %{crashes | row: crashes.row + 1}
    crashes = if loading?, do: while_loading(crashes, reason), else: crashes
    {if(crashes.crashes >= @crashes, do: :give_up, else: delay(crashes.row)), crashes}
  end

  defp while_loading(crashes, reason) do
    crashed = if outside?(reason), do: 0, else: 1
    %{crashes | loads: crashes.loads + 1, crashes: crashes.crashes + crashed, last: reason}
  end

  @doc """
  Records that the model is loaded. If the process dies before it has done any work, the pauses start from the first one.
  """
  @spec loaded(t) :: t
  def loaded(crashes), do: %__MODULE__{row: min(crashes.row, 1)}

  defp delay(1), do: 0
  defp delay(row), do: min(@first * 2 ** min(row - 2, 20), @most)

  @doc """
  Whether a text that was being spoken at these ends is to blame.
  """
  @spec guilty?([Peer.reason()]) :: boolean
  def guilty?(deaths),
    do: Enum.count(deaths, &(not outside?(&1))) >= @texts.crash or length(deaths) >= @texts.outside

  defp outside?({:exit_status, status}), do: status in [128 + 9, 128 + 15]
  defp outside?(_failed), do: false

  @doc """
  Describes an end in words, to follow "by".
  """
  @spec describe(Peer.reason()) :: String.t()
  def describe({:exit_status, status}) when status > 128,
    do: Map.get(@signals, status - 128, "signal #{status - 128}")

  def describe({:exit_status, status}), do: "exit status #{status}"
  def describe({:failed, what}), do: what

  @doc """
  What happened to the process while it loaded the model, in words to follow "it".
  """
  @spec loads(t) :: String.t()
  def loads(%__MODULE__{loads: loads, last: reason}) do
    times = if loads == 1, do: "died once", else: "died #{loads} times, the last time"
    "#{times} by #{describe(reason)}#{hint(reason)}"
  end

  defp hint({:exit_status, 137}), do: " (is this machine, or its container, out of memory?)"
  defp hint(_other), do: ""
end
