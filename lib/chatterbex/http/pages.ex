defmodule Chatterbex.HTTP.Pages do
  @moduledoc false
  # The static files. They are part of the compiled code.

  alias Chatterbex.HTTP.Response

  @openapi_path Path.expand("../../../priv/openapi.json", __DIR__)
  @external_resource @openapi_path
  @openapi File.read!(@openapi_path)

  @playground_path Path.expand("../../../priv/playground.html", __DIR__)
  @external_resource @playground_path
  @playground File.read!(@playground_path)

  @player_path Path.expand("../../../priv/static/chatterbex.js", __DIR__)
  @external_resource @player_path
  @player File.read!(@player_path)

  # The page only calls this server. The player's worklet is a blob: URL that the page makes.
  @policy "default-src 'none'; script-src 'self' 'unsafe-inline' blob:; style-src 'unsafe-inline'; connect-src 'self'; " <>
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

  @spec openapi() :: Response.t()
  def openapi, do: Response.text(200, "application/json", @openapi)

  @spec player() :: Response.t()
  def player do
    response = Response.text(200, "text/javascript; charset=utf-8", @player)
    %{response | headers: response.headers ++ [{"x-content-type-options", "nosniff"}]}
  end

  @spec playground() :: Response.t()
  def playground do
    response = Response.text(200, "text/html; charset=utf-8", @playground)

    %{
      response
      | headers:
          response.headers ++
            [
              {"content-security-policy", @policy},
              {"x-content-type-options", "nosniff"},
              {"referrer-policy", "no-referrer"}
            ]
    }
  end
end
