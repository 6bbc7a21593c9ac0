defmodule Chatterbex.HTTP.Request do
  @moduledoc """
  An HTTP request, as a web server has read it.

  `method` is in capitals, `path` begins with `/` and has no query; the names of `headers` are in lower case. `body` is what
  was sent, or a map where a parser has read it already, as JSON or as a form. A file of a form is `{:file, bytes}` in it.
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
  The value of a header, the first where there are several, or `nil`.

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
