defmodule Chatterbex.HTTP.Response do
  @moduledoc """
  The answer to an HTTP request.

  `body` is iodata, or `{:stream, enumerable}` of iodata that is made while you enumerate it. Enumerate it at most once, in
  the process that got the response. It raises `Chatterbex.Error` if the speech ends too early.
  """

  alias Chatterbex.JSON

  @enforce_keys [:status]
  defstruct [:status, headers: [], body: ""]

  @type t :: %__MODULE__{
          status: 200..599,
          headers: [{String.t(), String.t()}],
          body: iodata | {:stream, Enumerable.t()}
        }

  @doc false
  @spec json(200..599, term, [{String.t(), String.t()}]) :: t
  def json(status, value, headers \\ []) do
    %__MODULE__{
      status: status,
      headers: [{"content-type", "application/json"} | headers],
      body: JSON.encode(value)
    }
  end

  @doc false
  @spec text(200..599, String.t(), iodata) :: t
  def text(status, type, body), do: %__MODULE__{status: status, headers: [{"content-type", type}], body: body}

  # An error in OpenAI's form, whose clients read all four keys.
  @doc false
  @spec error(400..599, String.t(), keyword) :: t
  def error(status, message, options \\ []) do
    error = %{
      message: message,
      type: type(status),
      param: options[:param],
      code: Keyword.get(options, :code, code(status))
    }

    json(status, %{error: error}, Keyword.get(options, :headers, []))
  end

  defp type(401), do: "authentication_error"
  defp type(403), do: "permission_error"
  defp type(429), do: "rate_limit_error"
  defp type(status) when status >= 500, do: "server_error"
  defp type(_status), do: "invalid_request_error"

  defp code(400), do: "invalid_value"
  defp code(403), do: "forbidden"
  defp code(404), do: "not_found"
  defp code(405), do: "method_not_allowed"
  defp code(408), do: "request_timeout"
  defp code(409), do: "already_exists"
  defp code(413), do: "request_too_large"
  defp code(415), do: "unsupported_media_type"
  defp code(431), do: "headers_too_large"
  defp code(429), do: "overloaded"
  defp code(_status), do: "server_error"
end
