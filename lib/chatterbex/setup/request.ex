defmodule Chatterbex.Setup.Request do
  @moduledoc false
  # What a setup is to do: its options, checked.

  alias Chatterbex.{Error, Options, Python}
  alias Chatterbex.Setup.{Machine, Profile, Step}

  @enforce_keys [:home, :venv, :python, :force, :device, :report, :machine, :profiles]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          home: Path.t(),
          venv: Path.t(),
          python: String.t() | nil,
          force: boolean,
          device: :mps | :cuda | :cpu | :auto | nil,
          report: Step.report(),
          machine: Machine.t(),
          profiles: [Profile.t()]
        }

  @devices [:mps, :cuda, :cpu, :auto]

  @names [:home, :python, :force, :quiet, :device, :report]

  @doc """
  Checks the options of `Chatterbex.Setup.run/1`.
  """
  @spec new(keyword) :: {:ok, t} | {:error, Error.t()}
  def new(options) do
    if Keyword.keyword?(options),
      do: check(options),
      else: {:error, Error.new(:invalid_option, "options must be a keyword list, got #{inspect(options)}")}
  end

  defp check(options) do
    # A test gives a machine and something small to install.
    {machine, options} = Keyword.pop_lazy(options, :machine, &Machine.this/0)
    {profiles, options} = Keyword.pop_lazy(options, :profiles, &Profile.all/0)
    unknown = Enum.find(Keyword.keys(options), &(&1 not in @names))
    invalid = Enum.find(options, fn {name, value} -> not valid?(name, value) end)

    cond do
      unknown -> {:error, unknown(unknown)}
      invalid -> {:error, invalid(invalid)}
      true -> {:ok, request(options, machine, profiles)}
    end
  end

  defp request(options, machine, profiles) do
    home = Python.home(home: options[:home])

    %__MODULE__{
      home: home,
      venv: Python.venv(home),
      python: options[:python],
      force: options[:force] == true,
      device: options[:device],
      report: report(options),
      machine: machine,
      profiles: profiles
    }
  end

  @doc """
  Where its lines go.
  """
  @spec report(keyword) :: Step.report()
  def report(options) do
    cond do
      options[:quiet] == true -> fn _line -> :ok end
      is_function(options[:report], 1) -> options[:report]
      true -> &IO.puts(:stderr, &1)
    end
  end

  defp valid?(_name, nil), do: true
  defp valid?(name, value) when name in [:home, :python], do: is_binary(value) and value != ""
  defp valid?(name, value) when name in [:force, :quiet], do: is_boolean(value)
  defp valid?(:device, value), do: value in @devices
  defp valid?(:report, value), do: is_function(value, 1)
  defp valid?(_unknown, _value), do: true

  defp unknown(name) do
    Error.new(
      :invalid_option,
      "unknown option #{inspect(name)}.#{Options.did_you_mean(name, @names)} The options are #{list(@names)}.",
      %{option: name, options: @names}
    )
  end

  defp invalid({name, value}) do
    expected =
      case name do
        name when name in [:home, :python] -> "a string that is not empty"
        :device -> "one of #{list(@devices)}"
        :report -> "a function of one argument"
        _flag -> "true or false"
      end

    Error.new(:invalid_option, "option #{inspect(name)} must be #{expected}, got #{inspect(value)}", %{
      option: name,
      got: value
    })
  end

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)

  @doc """
  The environment that is there already, as `Chatterbex.Python.find/1`.
  """
  @spec find(t) :: {:ok, Python.t()} | {:error, Error.t()}
  def find(%__MODULE__{home: home, profiles: [first | _others]}),
    do: Python.find(home: home, profiles: [first.name])
end
