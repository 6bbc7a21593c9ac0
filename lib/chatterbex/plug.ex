if Code.ensure_loaded?(Plug) do
  defmodule Chatterbex.Plug do
    @moduledoc """
    `Chatterbex.HTTP` as a plug, for Phoenix and all other Plug servers.

        # in a router of Phoenix
        forward "/speech", Chatterbex.Plug, server: MyApp.Speech, api_key: "secret"

        # in an application with Bandit alone
        {Bandit, plug: {Chatterbex.Plug, server: MyApp.Speech}, port: 4000}

    Clients then use `https://my.app/speech/v1` as their base URL. It works before and after `Plug.Parsers`. To
    control who may call it, set `:api_key` or put your own plugs before it.

    The speech is made in the process of the request. When the client hangs up, Cowboy ends that process and the work with
    it. Bandit notices when it sends the next audio.

    This module exists only if the application has Plug.

    ## Options

    #{Chatterbex.Options.Schema.docs(:http)}
    """

    @behaviour Plug

    alias Chatterbex.{Files, HTTP}
    alias Chatterbex.HTTP.{Request, Response}
    alias Plug.Conn

    @doc """
    Checks the options. Raises `Chatterbex.Error`.

    ## Examples

        iex> Chatterbex.Plug.init(server: MyApp.Speech)
        [server: MyApp.Speech]
    """
    @impl true
    @spec init(keyword) :: keyword
    def init(options) do
      case HTTP.new(options) do
        {:ok, _http} -> options
        {:error, error} -> raise error
      end
    end

    @doc """
    Answers the request.

    ## Examples

        conn = Chatterbex.Plug.call(conn, Chatterbex.Plug.init(server: MyApp.Speech))
    """
    @impl true
    @spec call(Conn.t(), keyword) :: Conn.t()
    def call(conn, options) do
      http = http(options)

      case body(conn, HTTP.limit(http, request(conn, ""))) do
        {:ok, body, conn} -> answer(conn, HTTP.call(http, request(conn, body)))
        {:error, response, conn} -> answer(conn, response)
      end
    end

    # A router only keeps the options of a plug. The counters for one set of options are created once.
    defp http(options) do
      key = {__MODULE__, options}

      with nil <- :persistent_term.get(key, nil) do
        {:ok, http} = HTTP.new(options)
        :persistent_term.put(key, http)
        http
      end
    end

    # If a parser has already read the body, its result is used.
    defp body(%{body_params: %{__struct__: Conn.Unfetched}} = conn, {max, larger}) do
      case Conn.read_body(conn, length: max) do
        {:ok, body, conn} -> {:ok, body, conn}
        {:more, _part, conn} -> {:error, larger, conn}
        {:error, _reason} -> {:error, Response.error(408, "the request did not arrive in time"), conn}
      end
    end

    defp body(conn, {max, larger}) do
      with {:ok, fields} <- uploads(Map.to_list(conn.body_params), max, %{}),
           do: {:ok, fields, conn},
           else: (:error -> {:error, larger, conn})
    end

    # The parser has written the files of a form to disk.
    defp uploads([], _max, fields), do: {:ok, fields}

    defp uploads([{name, %{__struct__: Plug.Upload, path: path}} | rest], max, fields) do
      case Files.read(path, max) do
        {:ok, bytes} -> uploads(rest, max - byte_size(bytes), Map.put(fields, name, {:file, bytes}))
        {:error, _too_large} -> :error
      end
    end

    defp uploads([{name, value} | rest], max, fields), do: uploads(rest, max, Map.put(fields, name, value))

    defp request(conn, body) do
      %Request{
        method: conn.method,
        path: "/" <> Enum.join(conn.path_info, "/"),
        query: conn.query_string,
        headers: conn.req_headers,
        body: body
      }
    end

    defp answer(conn, response) do
      conn =
        Enum.reduce(response.headers, conn, fn {name, value}, conn ->
          Conn.put_resp_header(conn, name, value)
        end)

      case response.body do
        {:stream, parts} -> conn |> Conn.send_chunked(response.status) |> send_parts(parts)
        body -> Conn.send_resp(conn, response.status, body)
      end
      |> Conn.halt()
    end

    # If the client is gone, the rest of the speech is not made.
    defp send_parts(conn, parts) do
      Enum.reduce_while(parts, conn, fn part, conn ->
        case Conn.chunk(conn, part) do
          {:ok, conn} -> {:cont, conn}
          {:error, _closed} -> {:halt, conn}
        end
      end)
    end
  end
end
