defmodule Chatterbex.HTTP.ErrorResponse do
  @moduledoc false
  # An error of the library as a response.

  require Logger

  alias Chatterbex.Error
  alias Chatterbex.HTTP.Response

  # Reasons that are the request's fault. Their messages only concern the request.
  @request [
    :invalid_option,
    :invalid_text,
    :invalid_audio,
    :unknown_language,
    :voice_unreadable,
    :voice_too_short,
    :not_supported
  ]

  # Reasons that may have passed when the request is sent again.
  @passing [:not_running, :noconnection, :engine_crashed, :timeout, :cancelled]

  @retry_seconds 2

  @doc """
  The response for an error. `param` is the field at fault if the error does not name one.
  """
  @spec response(Error.t(), String.t() | nil) :: Response.t()
  def response(error, param \\ nil)

  def response(%Error{reason: reason} = error, param) when reason in @request do
    Response.error(400, error.message, param: param(error) || param, code: Atom.to_string(reason))
  end

  def response(%Error{reason: :overloaded}, _param), do: busy("the server has as many requests as it accepts")

  # Their messages may name files and hosts, which the client must not see.
  def response(%Error{reason: reason} = error, _param) do
    Logger.error("a request failed: #{error.message}")
    headers = if reason in @passing, do: retry(), else: []

    Response.error(503, "the model cannot speak now (#{reason}); the server's log says why",
      code: Atom.to_string(reason),
      headers: headers
    )
  end

  @doc """
  The response for a request that must wait. `why` says what is busy.
  """
  @spec busy(String.t()) :: Response.t()
  def busy(why) do
    Response.error(429, "#{why}; try again in #{@retry_seconds} s", code: "overloaded", headers: retry())
  end

  defp retry, do: [{"retry-after", "#{@retry_seconds}"}]

  defp param(%Error{reason: :invalid_text}), do: "input"
  defp param(%Error{details: %{option: option}}) when is_atom(option), do: Atom.to_string(option)
  defp param(_error), do: nil
end
