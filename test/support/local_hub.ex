defmodule Chatterbex.LocalHub do
  @moduledoc """
  A Hugging Face hub on the loopback (test/python/local_hub), and a cache of its own to fetch into.
  """

  import ExUnit.Assertions
  import ExUnit.Callbacks

  alias Chatterbex.{JSON, Python}
  alias Chatterbex.ModelFiles.Set

  @variables ~w(HF_ENDPOINT HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_TOKEN HF_HUB_OFFLINE)

  @doc """
  Starts a hub that serves a folder in `dir`, and lets the environment lead to it until the test ends. A test that
  uses it runs alone: the environment is everybody's.
  """
  def start(dir) do
    root = Path.join(dir, "served")
    File.mkdir_p!(root)
    {:ok, python} = Python.find()

    port =
      Port.open({:spawn_executable, python.program}, [
        :binary,
        :exit_status,
        line: 1_000_000,
        args: ["-m", "local_hub", root],
        cd: Path.expand("../python", __DIR__),
        env: [{'PYTHONDONTWRITEBYTECODE', '1'}]
      ])

    assert_receive {^port, {:data, {:eol, "http://" <> _address = url}}}, 20_000
    before = Map.new(@variables, &{&1, System.get_env(&1)})

    on_exit(fn -> System.put_env(before) end)

    System.put_env(
      Map.merge(Map.new(@variables, &{&1, nil}), %{
        "HF_ENDPOINT" => url,
        "HF_HOME" => Path.join(dir, "huggingface")
      })
    )

    %{port: port, root: root, url: url, dir: dir}
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
      _other -> "PK" <> bytes(name <> salt, 20_000)
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

  defp ask(%{port: port}, command) do
    Port.command(port, String.replace(JSON.encode(command), ~r/\n\s*/, "") <> "\n")
    assert_receive {^port, {:data, {:eol, answer}}}, 40_000
    {:ok, answer} = JSON.decode(answer)
    answer
  end
end
