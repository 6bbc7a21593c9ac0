defmodule Chatterbex.Voice.FileCache do
  @moduledoc false
  # Caches the most recently used voices and decoded recordings that were read from files, up to a number of bytes.
  # Readers use a table directly; the process that owns it decides what to keep and what to drop.

  use GenServer

  @max_bytes 64_000_000

  # A file that is written twice within a second looks the same both times, so a file that new is not cached.
  @settled_after 2

  @doc """
  Options: `:name`, which the table has too, and `:max_bytes`.
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    name = Keyword.get(options, :name, __MODULE__)
    GenServer.start_link(__MODULE__, {name, Keyword.get(options, :max_bytes, @max_bytes)}, name: name)
  end

  @doc """
  Returns the cached result of `read` for this file if the file is unchanged, and otherwise calls `read`, which returns
  `{:ok, value, bytes}` or an error. Errors are not cached.
  """
  @spec fetch(atom, Path.t(), File.Stat.t(), (... -> {:ok, value, non_neg_integer} | {:error, error})) ::
          {:ok, value} | {:error, error}
        when value: term, error: term
  def fetch(cache \\ __MODULE__, path, stat, read) do
    version = {stat.inode, stat.size, stat.mtime, stat.ctime}

    with :unknown <- known(cache, path, version),
         {:ok, value, bytes} <- read.() do
      if System.os_time(:second) - stat.mtime >= @settled_after,
        do: GenServer.cast(cache, {:keep, {path, version, value, bytes, now()}})

      {:ok, value}
    end
  end

  @doc """
  The number of cached bytes and files.
  """
  @spec size(atom) :: %{bytes: non_neg_integer, files: non_neg_integer}
  def size(cache \\ __MODULE__), do: GenServer.call(cache, :size)

  defp known(cache, path, version) do
    case :ets.lookup(cache, path) do
      [{_path, ^version, value, _bytes, _used}] ->
        :ets.update_element(cache, path, {5, now()})
        {:ok, value}

      _none_or_older ->
        :unknown
    end
  rescue
    # The application is not running, or the table's owner just died.
    ArgumentError -> :unknown
  end

  defp now, do: System.monotonic_time()

  @impl true
  def init({name, max}) do
    :ets.new(name, [:named_table, :public, read_concurrency: true])
    {:ok, %{table: name, max: max, bytes: 0}}
  end

  @impl true
  def handle_call(:size, _from, state),
    do: {:reply, %{bytes: state.bytes, files: :ets.info(state.table, :size)}, state}

  @impl true
  def handle_cast({:keep, {path, _version, _value, bytes, _used} = entry}, state) do
    state = drop(state, path)

    if bytes > state.max do
      {:noreply, state}
    else
      state = make_room(state, bytes)
      :ets.insert(state.table, entry)
      {:noreply, %{state | bytes: state.bytes + bytes}}
    end
  end

  defp make_room(%{bytes: kept, max: max} = state, bytes) when kept + bytes <= max, do: state

  defp make_room(state, bytes) do
    oldest =
      state.table |> :ets.tab2list() |> Enum.min_by(fn {_path, _version, _value, _bytes, used} -> used end)

    state |> drop(elem(oldest, 0)) |> make_room(bytes)
  end

  defp drop(state, path) do
    case :ets.take(state.table, path) do
      [{_path, _version, _value, bytes, _used}] -> %{state | bytes: state.bytes - bytes}
      [] -> state
    end
  end
end
