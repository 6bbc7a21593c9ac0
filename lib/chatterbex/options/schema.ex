defmodule Chatterbex.Options.Schema do
  @moduledoc false
  # The options as data: type, default and documentation of each.

  alias Chatterbex.Device

  @server [
    name: [type: :name, doc: "the name to register, as for any `GenServer`"],
    model: [type: :model, default: :hibari, doc: "the model to run, one of `Chatterbex.models/0`"],
    device: [type: :device, default: :auto, doc: "where to run it: see `Chatterbex.Device`"],
    fallback: [
      type: :boolean,
      default: true,
      doc: "whether a device that does not work is replaced by the CPU; `false` makes that an error"
    ],
    threads: [
      type: {:integer, 1, 256},
      doc: "threads for the model's arithmetic; the default leaves the schedulers one core"
    ],
    max_queue: [
      type: {:integer, 0, 1_000_000},
      default: 200,
      doc: "how many requests may wait; one more is refused with `:overloaded`"
    ],
    max_batch: [
      type: {:integer, 1, 256},
      doc: "how many requests the model may work on at once; the default is the model's own"
    ],
    max_characters: [
      type: {:integer, 1, 10_000_000},
      default: 20_000,
      doc: "how long one request's text may be, in characters (about 25 minutes of speech)"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "milliseconds for one request, waiting included, where the request names none"
    ],
    load_timeout: [
      type: :timeout,
      default: 600_000,
      doc: "milliseconds that starting Python and loading the model may take"
    ],
    home: [type: :string, doc: "the folder that `mix chatterbex.setup --path` was given"],
    model_options: [type: :map, default: %{}, doc: "options for the `load` of a model of your own"]
  ]

  @generate [
    server: [type: :server, doc: "the server to ask; the default server is started on first use"],
    voice: [type: :voice, doc: "the voice to speak in; the default is the model's own"],
    seed: [
      type: {:integer, 0, 0xFFFFFFFF},
      doc:
        "makes the same text give the same audio; without it a random one is drawn and told in the metadata"
    ],
    timeout: [
      type: :timeout,
      doc: "milliseconds for this request, waiting included; the default is the server's"
    ],
    speed: [type: {:number, 0.5, 2.0}, specific: true, doc: "the pace; 1.0 is the voice's own (`:hibari`)"]
  ]

  @wav [
    encoding: [
      type: {:in, [:s16, :s24, :f32]},
      default: :s16,
      doc: "16-bit or 24-bit integers, or 32-bit floats"
    ]
  ]

  @groups [server: @server, generate: @generate, wav: @wav]

  @spec fetch(atom) :: keyword
  def fetch(group), do: Keyword.fetch!(@groups, group)

  @doc """
  The options of a group as a Markdown list.
  """
  @spec docs(atom) :: String.t()
  def docs(group) do
    Enum.map_join(fetch(group), "\n", fn {name, spec} ->
      default = if is_nil(spec[:default]), do: "", else: " (default `#{inspect(spec[:default])}`)"
      "  * `:#{name}` - #{describe(spec[:type])}: #{spec[:doc]}#{default}"
    end)
  end

  @doc """
  Checks a value against a type, and brings it into the form that the library works with.
  """
  @spec cast(term, term) :: {:ok, term} | :error
  def cast(:boolean, value) when is_boolean(value), do: {:ok, value}
  def cast(:string, value) when is_binary(value), do: if(String.valid?(value), do: {:ok, value}, else: :error)
  def cast(:map, value) when is_map(value) and not is_struct(value), do: {:ok, value}
  def cast({:integer, min, max}, value) when is_integer(value) and value in min..max, do: {:ok, value}

  def cast({:number, min, max}, value) when is_number(value) and value >= min and value <= max,
    do: {:ok, value * 1.0}

  def cast({:in, values}, value), do: if(value in values, do: {:ok, value}, else: :error)
  def cast(:timeout, :infinity), do: {:ok, :infinity}
  # 2^32 - 1 is the longest that the VM's timers take.
  def cast(:timeout, value) when is_integer(value) and value in 1..0xFFFFFFFF, do: {:ok, value}
  def cast(:device, value), do: Device.parse(value)
  def cast(:model, value) when is_binary(value), do: cast(:string, value)
  def cast(:model, value) when is_atom(value) and not is_boolean(value), do: {:ok, value}
  def cast(:voice, value), do: cast(:string, value)
  def cast(:name, value) when is_atom(value) and not is_boolean(value), do: {:ok, value}
  def cast(:name, {:via, module, _name} = value) when is_atom(module), do: {:ok, value}
  def cast(:name, {:global, _name} = value), do: {:ok, value}
  def cast(:server, value) when is_pid(value), do: {:ok, value}
  def cast(:server, {name, node} = value) when is_atom(name) and is_atom(node), do: {:ok, value}
  def cast(:server, value), do: cast(:name, value)
  def cast(_type, _value), do: :error

  @doc """
  A type in words, to follow "must be".
  """
  @spec describe(term) :: String.t()
  def describe(:boolean), do: "true or false"
  def describe(:string), do: "a string"
  def describe(:map), do: "a map"
  def describe({:integer, min, max}), do: "a whole number from #{min} to #{max}"
  def describe({:number, min, max}), do: "a number from #{min} to #{max}"
  def describe({:in, values}), do: "one of " <> Enum.map_join(values, ", ", &inspect/1)
  def describe(:timeout), do: "a number of milliseconds from 1 to 4294967295, or :infinity"

  def describe(:device),
    do: ~s(:auto, :cpu, :mps, :cuda, {:cuda, n}, or one of these as a string such as "cuda:1")

  def describe(:model), do: "the name of a model, an atom or a string"
  def describe(:voice), do: "the name of a voice, a string"
  def describe(:name), do: "an atom, {:via, module, name} or {:global, name}"
  def describe(:server), do: "a server: a name, a pid, {name, node}, {:via, module, name} or {:global, name}"

  @doc """
  A value as it stands in a message: never longer than a line.
  """
  @spec show(term) :: String.t()
  def show(value), do: value |> inspect(limit: 5, printable_limit: 60) |> String.slice(0, 120)
end
