defmodule Chatterbex.Options.Cast do
  @moduledoc false
  # Checks values against the types of options in `Chatterbex.Options.Schema`.

  alias Chatterbex.Device.DeviceName

  # The structs that name a voice. Only their names are needed here. Aliases would make everything that checks an option
  # depend on all that audio and voices need, servers included.
  @voices [:"Elixir.Chatterbex.Audio", :"Elixir.Chatterbex.Voice"]

  @doc """
  Checks a value against a type, and returns it in the form that the library uses.
  """
  @spec cast(term, term) :: {:ok, term} | :error
  def cast(:boolean, value) when is_boolean(value), do: {:ok, value}
  def cast(:string, value) when is_binary(value), do: if(String.valid?(value), do: {:ok, value}, else: :error)

  def cast(:nonempty_string, value), do: if(value == "", do: :error, else: cast(:string, value))

  def cast(:version, value) when is_binary(value),
    do: if(value =~ ~r/\A\d+\.\d+(\.\d+)?(\+[a-z0-9.]+)?\z/, do: {:ok, value}, else: :error)

  # The names as strings, each once.
  def cast(:names, value) when is_list(value) do
    if not List.improper?(value) and Enum.all?(value, &(is_atom(&1) or is_binary(&1))),
      do: {:ok, value |> Enum.map(&Kernel.to_string/1) |> Enum.uniq()},
      else: :error
  end

  def cast({:string, max}, value) when is_binary(value),
    do: if(String.valid?(value) and String.length(value) <= max, do: {:ok, value}, else: :error)

  def cast(:map, value) when is_map(value) and not is_struct(value),
    do: if(Enum.all?(Map.keys(value), &is_atom/1), do: {:ok, value}, else: :error)

  def cast(:named, value) when is_map(value) and not is_struct(value),
    do: if(Enum.all?(Map.keys(value), &is_binary/1), do: {:ok, value}, else: :error)

  def cast({:integer, min, max}, value) when is_integer(value) and value >= min and value <= max,
    do: {:ok, value}

  def cast({:number, min, max}, value) when is_number(value) and value >= min and value <= max,
    do: {:ok, value * 1.0}

  def cast({:in, values}, value), do: if(value in values, do: {:ok, value}, else: :error)
  def cast(:timeout, :infinity), do: {:ok, :infinity}
  # 2^32 - 1 is the longest timeout that the VM's timers accept.
  def cast(:timeout, value) when is_integer(value) and value in 1..0xFFFFFFFF, do: {:ok, value}
  def cast(:device, value), do: DeviceName.parse(value)

  def cast(:devices, [_ | _] = value) do
    devices = if List.improper?(value), do: [:error], else: Enum.map(value, &DeviceName.parse/1)
    if Enum.member?(devices, :error), do: :error, else: {:ok, Enum.map(devices, &elem(&1, 1))}
  end

  def cast(:model, value) when is_binary(value), do: cast(:string, value)
  def cast(:model, value) when is_atom(value) and not is_boolean(value), do: {:ok, value}

  def cast(:voice, %{__struct__: struct} = value) when struct in @voices, do: {:ok, value}

  def cast(:voice, {:file, path}), do: with({:ok, path} <- cast(:string, path), do: {:ok, {:file, path}})
  def cast(:voice, value), do: cast(:string, value)
  def cast(:language, value) when is_binary(value), do: cast(:string, value)
  def cast(:language, value) when is_atom(value) and not is_boolean(value), do: {:ok, value}

  def cast(:sounds, value) do
    if is_list(value) and Enum.all?(value, &sound?/1),
      do: {:ok, Enum.map(value, &String.downcase/1)},
      else: :error
  end

  def cast(:folder, {app, path}) when is_atom(app) and is_binary(path) do
    {:ok, Application.app_dir(app, path)}
  rescue
    # There is no such application.
    ArgumentError -> :error
  end

  def cast(:folder, value), do: with({:ok, path} <- cast(:string, value), do: {:ok, Path.expand(path)})
  def cast(:datetime, %DateTime{} = value), do: {:ok, value}
  def cast(:function, value) when is_function(value, 1), do: {:ok, value}
  def cast(:name, value) when is_atom(value) and not is_boolean(value) and value != nil, do: {:ok, value}
  def cast(:name, {:via, module, _name} = value) when is_atom(module), do: {:ok, value}
  def cast(:name, {:global, _name} = value), do: {:ok, value}
  def cast(:asker, value) when is_pid(value) or value == :anyone, do: {:ok, value}
  def cast(:server, value) when is_pid(value), do: {:ok, value}
  def cast(:server, {name, node} = value) when is_atom(name) and is_atom(node), do: {:ok, value}
  def cast(:server, value), do: cast(:name, value)
  def cast(_type, _value), do: :error

  defp sound?(sound),
    do: is_binary(sound) and String.valid?(sound) and sound =~ ~r/^[^\s\[\]]+( [^\s\[\]]+)*$/u
end
