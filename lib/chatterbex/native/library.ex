defmodule Chatterbex.Native.Library do
  @moduledoc false
  # Where the native libraries are, and what to say when one is missing or does not load.
  #
  # The NIF modules load their library on the first call, not in @on_load: a missing library is then an
  # error value at the call, not an undefined module, and a library built after the module was compiled
  # (as in a first `mix test`) is still found. :erlang.load_nif/2 must be called from the module itself.

  @type name :: :libpython | :audio | :engine
  @type error :: {:error, {:native_not_loaded, String.t(), map}}

  # Three NIF libraries, and the one that Python loads.
  @files ~w(audio.so engine.so libpython.so t3.so)

  @reinstall "Build it with `mix compile --force` (in an application: `mix deps.compile chatterbex --force`)"
  @rebuild "Compile it on this machine with `CHATTERBEX_BUILD=1 mix compile --force` " <>
             "(in an application: `CHATTERBEX_BUILD=1 mix deps.compile chatterbex --force`)"

  @doc """
  The file names of all native libraries.
  """
  @spec files() :: [String.t()]
  def files, do: @files

  # Without the ending: load_nif appends ".so" on every Unix.
  @spec path(name) :: charlist
  def path(name), do: directory() |> Path.join(Atom.to_string(name)) |> String.to_charlist()

  @spec directory() :: Path.t()
  def directory do
    case System.get_env("CHATTERBEX_NATIVE_DIR") do
      dir when is_binary(dir) and dir != "" -> Path.expand(dir)
      _unset -> Application.app_dir(:chatterbex, "priv/native")
    end
  end

  @doc """
  Loads a library by `load`, which calls load_nif from the NIF's own module, and then calls the NIF by `again`.
  """
  @spec first_call(name, (... -> :ok | {:error, {atom, charlist}}), (... -> result)) :: result | error
        when result: term
  def first_call(name, load, again) do
    # A library that lacks the NIF, one built for another version, leads here a second time.
    if Process.put({__MODULE__, name}, true),
      do: not_loaded(name, "it has not all functions of this version"),
      else: load_and_call(name, load.(), again)
  after
    Process.delete({__MODULE__, name})
  end

  # Another process came first, or the module's code was loaded again.
  defp load_and_call(_name, {:error, {reason, _text}}, again) when reason in [:reload, :upgrade], do: again.()
  defp load_and_call(_name, :ok, again), do: again.()
  defp load_and_call(name, {:error, {_reason, text}}, _again), do: not_loaded(name, to_string(text))

  defp not_loaded(name, why) do
    file = "#{path(name)}.so"

    message =
      if File.regular?(file),
        do: "the native library #{file} does not load: #{why}. #{@rebuild}.",
        else:
          "the native library #{file} is missing. #{@reinstall}, or point CHATTERBEX_NATIVE_DIR at a folder that holds it."

    {:error, {:native_not_loaded, message, %{library: file, load_error: why}}}
  end
end
