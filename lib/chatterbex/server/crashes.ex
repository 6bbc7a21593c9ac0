defmodule Chatterbex.Server.Crashes do
  @moduledoc false
  # What follows from the ends of a model's process: when the model is loaded again, when that is given up, and when a
  # text is to blame.
  #
  # SIGKILL and SIGTERM come from outside: the system that runs out of memory, or somebody who stops processes. They say
  # little about the model, so no number of them ends the loading: `load_timeout` does. A text may be the cause of the
  # first, so they count against it, but for less than a crash.

  alias Chatterbex.Peer

  # Milliseconds before the model is loaded again: none after work that was done, then doubled up to the most.
  @first 200
  @most 5_000

  # Crashes in a row while loading after which the server stops trying.
  @crashes 3
  # Ends of the process that a text was in, after which the text is not tried again.
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
  The process has ended, while it loaded the model or later. After how many milliseconds to load again.
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
  The model is loaded. Should the process die before it has done anything, the pauses begin again, with the first one.
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
  An end in words, to follow "by".
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
