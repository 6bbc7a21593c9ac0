defmodule Chatterbex.Configuration do
  @moduledoc false
  # The configuration under `config :chatterbex`, and the library's own version.
  #
  # `eval` in a release does not load the application. Only once it is loaded are the configuration and the version known.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.Options.Schema

  # Beside the options of a server.
  @others [:env, :models]

  @doc """
  The value of a key, or `default`.
  """
  @spec get(atom, term) :: term
  def get(name, default \\ nil) do
    load()
    Application.get_env(:chatterbex, name, default)
  end

  @doc """
  The variables that Python is given, as configured.
  """
  @spec environment() :: %{String.t() => String.t()}
  def environment,
    do: for({name, value} <- get(:env, %{}), into: %{}, do: {to_string(name), to_string(value)})

  @doc """
  The configured options of every server; an error if this library does not know a key.
  """
  @spec server_options() :: {:ok, keyword} | {:error, Error.t()}
  def server_options do
    load()
    # OTP keeps its own keys there, too.
    configured = :chatterbex |> Application.get_all_env() |> Keyword.delete(:included_applications)
    names = Keyword.keys(Schema.fetch(:server)) -- [:name]

    case Enum.find(Keyword.keys(configured), &(&1 not in (names ++ @others))) do
      nil -> {:ok, Keyword.take(configured, names)}
      name -> {:error, unknown(name, Enum.sort(names ++ @others))}
    end
  end

  defp unknown(name, names),
    do: Options.unknown(name, names, "config :chatterbex has an unknown key", "keys")

  @doc """
  The version of this library.
  """
  @spec version() :: String.t()
  def version do
    load()
    :chatterbex |> Application.spec(:vsn) |> to_string()
  end

  defp load do
    with nil <- Application.spec(:chatterbex, :vsn), do: Application.load(:chatterbex)
    :ok
  end
end
