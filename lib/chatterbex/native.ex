defmodule Chatterbex.Native do
  @moduledoc false
  # The NIFs of native/engine: the thread that owns Python and every model.
  #
  # The library has undefined Py* symbols: it can be loaded only after Chatterbex.Native.LibPython.open/1.
  # Chatterbex.Runtime sees to that order; until it has, every function but start/2 is refused here.

  alias Chatterbex.Native.Library

  @typep error :: {:error, {atom, String.t(), map}}

  @spec start(config :: map, log :: pid) :: :ok | error
  def start(config, log), do: first_call(fn -> __MODULE__.start(config, log) end)

  # Loads the library, and does nothing else.
  @spec load() :: map | error
  def load, do: first_call(fn -> __MODULE__.status() end)

  @spec submit(command :: map, reply_to :: pid) :: :ok | error
  def submit(command, reply_to), do: reloaded(fn -> __MODULE__.submit(command, reply_to) end)

  @spec cancel(id :: pos_integer) :: :ok | error
  def cancel(id), do: reloaded(fn -> __MODULE__.cancel(id) end)

  @spec status() :: %{state: String.t(), queued: non_neg_integer, live: non_neg_integer} | error
  def status, do: reloaded(fn -> __MODULE__.status() end)

  @spec stop(timeout_ms :: non_neg_integer) :: :ok | error
  def stop(timeout_ms), do: reloaded(fn -> __MODULE__.stop(timeout_ms) end)

  defp first_call(again) do
    load = fn ->
      with :ok <- :erlang.load_nif(Library.path(:engine), 0),
           do: :persistent_term.put({__MODULE__, :loaded}, true)
    end

    Library.first_call(:engine, load, again)
  end

  # New code of this module finds the library, which stays in memory, by loading it again.
  defp reloaded(again) do
    if :persistent_term.get({__MODULE__, :loaded}, false),
      do: first_call(again),
      else: {:error, {:native_not_loaded, "Python was not started in this VM", %{}}}
  end
end
