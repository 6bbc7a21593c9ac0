defmodule Chatterbex.LocalHub do
  @moduledoc """
  A Hugging Face hub on the loopback (test/python/local_hub), and a cache of its own to fetch into.
  """

  import ExUnit.Callbacks

  alias Chatterbex.{JSON, Python}
  alias Chatterbex.ModelFiles.Set

  @variables ~w(HF_ENDPOINT HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_TOKEN HF_HUB_OFFLINE HF_HUB_DOWNLOAD_TIMEOUT)

  @doc """
  Starts a hub for the tests of a module, to be given to `use_hub/2` by each.
  """
  def start do
    root = Chatterbex.TestHelp.temporary_path("chatterbex-hub")
    File.mkdir_p!(root)
    on_exit(fn -> File.rm_rf!(root) end)
    {:ok, python} = Python.find()

    # Tests come and go, so the port belongs to its own process.
    {:ok, agent} = start_supervised({Agent, fn -> open(python.program, root) end})
    url = Agent.get(agent, &read/1)
    %{agent: agent, root: root, url: url}
  end

  @doc """
  Empties the hub, and lets the environment lead to it, and to an empty cache in `dir`, until the test ends. Such a
  test runs alone: the environment is everybody's.
  """
  def use_hub(hub, dir) do
    ask(hub, %{do: "reset"})
    for owner <- File.ls!(hub.root), do: File.rm_rf!(Path.join(hub.root, owner))

    before = Map.new(@variables, &{&1, System.get_env(&1)})
    on_exit(fn -> System.put_env(before) end)
    System.put_env(Map.new(@variables, &{&1, nil}))
    System.put_env(%{"HF_ENDPOINT" => hub.url, "HF_HOME" => Path.join(dir, "huggingface")})
    Map.put(hub, :dir, dir)
  end

  @doc """
  Puts all the files of a model onto the hub, small ones with the right form.
  """
  def serve(hub, model, options \\ []) do
    {:ok, set} = Set.fetch(model, options)

    for source <- set.sources, file <- source.files do
      write(hub, source.repository, file.name, content(file.name, source.repository))
    end

    set
  end

  @doc """
  Puts one file onto the hub; `repository` may be of a revision, as in `owner/name@v1`.
  """
  def write(hub, repository, name, content) do
    path = Path.join([hub.root, repository, name])
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end

  @doc """
  The content that `serve/3` gives a file.
  """
  def content(name, salt \\ "") do
    case Path.extname(name) do
      ".safetensors" -> safetensors(name <> salt, 300_000)
      ".json" -> ~s({"name": "#{name}"})
      # The first and last bytes of a zip file, as far as they are checked.
      _other -> "PK" <> bytes(name <> salt, 20_000) <> <<"PK", 5, 6, 0::size(18)-unit(8)>>
    end
  end

  @doc """
  A whole safetensors file with `size` bytes of numbers in it.
  """
  def safetensors(seed, size) do
    header = ~s({"a": {"dtype": "U8", "shape": [#{size}], "data_offsets": [0, #{size}]}})
    <<byte_size(header)::little-64>> <> header <> bytes(seed, size)
  end

  defp bytes(seed, size) do
    block = :crypto.hash(:sha512, seed)
    block |> :binary.copy(div(size, 64) + 1) |> binary_part(0, size)
  end

  @doc """
  Mounts a disk of 200 kB.
  """
  def mount(folder) do
    System.cmd("mount", ["-t", "tmpfs", "-o", "size=200k", "none", folder], stderr_to_stdout: true)
  end

  @doc """
  Whether this user may mount one.
  """
  def mountable? do
    folder = Chatterbex.TestHelp.temporary_path("chatterbex-mount")
    File.mkdir_p!(folder)
    mounted? = System.find_executable("mount") && match?({_said, 0}, mount(folder))
    if mounted?, do: System.cmd("umount", [folder])
    File.rmdir!(folder)
    mounted?
  end

  @doc """
  Lets requests fail; `about` as in `local_hub.Fault`.
  """
  def fail(hub, about), do: ask(hub, Map.merge(%{do: "fail"}, Map.new(about)))

  @doc """
  Waits until the hub holds a body back.
  """
  def await_held(hub), do: ask(hub, %{do: "await_held"})

  @doc """
  Lets what is held go on.
  """
  def release(hub), do: ask(hub, %{do: "release"})

  @doc """
  The requests that came, oldest first.
  """
  def requests(hub, method \\ nil) do
    for %{"method" => made} = request <- ask(hub, %{do: "requests"}), method in [nil, made], do: request
  end

  defp ask(%{agent: agent}, command) do
    line = String.replace(JSON.encode(command), ~r/\n\s*/, "") <> "\n"

    answer =
      Agent.get(
        agent,
        fn port ->
          Port.command(port, line)
          read(port)
        end,
        60_000
      )

    {:ok, answer} = JSON.decode(answer)
    answer
  end

  defp open(python, root) do
    Port.open({:spawn_executable, python}, [
      :binary,
      :exit_status,
      line: 1_000_000,
      args: ["-m", "local_hub", root],
      cd: Path.expand("../python", __DIR__),
      env: [{~c"PYTHONDONTWRITEBYTECODE", ~c"1"}]
    ])
  end

  defp read(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, status}} -> raise "the hub ended with status #{status}"
    end
  end
end
