defmodule Chatterbex.HTTP.Request do
  @moduledoc """
  An HTTP request that a web server has read.

  `method` is in capitals. `path` begins with `/` and has no query. The names of `headers` are in lower case. `body` is the
  bytes of the body, or a map if a parser has already read it as JSON or as a form. In the map, a file is `{:file, bytes}`.
  """

  @enforce_keys [:method, :path]
  defstruct [:method, :path, query: "", headers: [], body: ""]

  @type t :: %__MODULE__{
          method: String.t(),
          path: String.t(),
          query: String.t(),
          headers: [{String.t(), String.t()}],
          body: binary | map
        }

  @doc """
  Returns the value of a header, the first if there are several, or `nil`.

  ## Examples

      iex> request = %Chatterbex.HTTP.Request{method: "GET", path: "/", headers: [{"host", "localhost"}]}
      iex> Chatterbex.HTTP.Request.header(request, "host")
      "localhost"
  """
  @spec header(t, String.t()) :: String.t() | nil
  def header(%__MODULE__{headers: headers}, name) do
    with {_name, value} <- List.keyfind(headers, name, 0), do: value
  end
end
