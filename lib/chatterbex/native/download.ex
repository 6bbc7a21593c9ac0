defmodule Chatterbex.Native.Download do
  @moduledoc false
  # Fetches a file over HTTP while Chatterbex is compiled, where no HTTP client but OTP's own is sure to be there.
  # It asks the proxy that the environment names, and trusts the system's certificates.

  # Its own profile: the settings of other users of :httpc in this VM stay as they are.
  @profile :chatterbex_native
  @connect_timeout 15_000
  @timeout 120_000
  @attempts 3
  @wait 1_000

  @typedoc "`max` is in bytes, `timeout` in milliseconds for each attempt, `wait` in milliseconds between attempts."
  @type options :: %{
          required(:env) => %{String.t() => String.t()},
          required(:max) => pos_integer,
          optional(:timeout) => pos_integer,
          optional(:wait) => non_neg_integer
        }

  @doc """
  Fetches `url`. It tries again after errors that may pass. The error is a reason that completes "cannot fetch URL: ".
  """
  @spec get(String.t(), options) :: {:ok, binary} | {:error, String.t()}
  def get(url, options) do
    {:ok, _started} = Application.ensure_all_started(:inets)
    {:ok, _started} = Application.ensure_all_started(:ssl)
    {:ok, _profile} = :inets.start(:httpc, profile: @profile)

    with {:ok, http_options} <- http_options(URI.parse(url), options.env),
         # In a process of its own: :httpc still sends messages after a request was cancelled.
         do: Task.await(Task.async(fn -> attempt(url, http_options, options, @attempts) end), :infinity)
  after
    :inets.stop(:httpc, @profile)
  end

  defp attempt(url, http_options, options, left) do
    case request(url, http_options, options) do
      {:retry, _reason} when left > 1 ->
        Process.sleep(Map.get(options, :wait, @wait))
        attempt(url, http_options, options, left - 1)

      {:retry, reason} ->
        {:error, reason}

      done ->
        done
    end
  end

  defp request(url, http_options, options) do
    timeout = Map.get(options, :timeout, @timeout)
    http_options = [timeout: timeout, connect_timeout: min(timeout, @connect_timeout)] ++ http_options
    how = [sync: false, stream: :self, body_format: :binary]

    case :httpc.request(
           :get,
           {to_charlist(url), [{~c"user-agent", ~c"chatterbex"}]},
           http_options,
           how,
           @profile
         ) do
      {:ok, request} -> receive_body(request, deadline(timeout), options.max, [], 0)
      {:error, reason} -> {:error, "the address is not valid: #{inspect(reason)}"}
    end
  end

  # A little longer than :httpc itself waits: its own error says more.
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout + 1_000

  defp receive_body(request, deadline, max, pieces, size) do
    receive do
      {:http, {^request, :stream_start, _headers}} ->
        receive_body(request, deadline, max, pieces, size)

      {:http, {^request, :stream, piece}} when size + byte_size(piece) > max ->
        :ok = :httpc.cancel_request(request, @profile)
        {:error, "the file is larger than #{max} bytes"}

      {:http, {^request, :stream, piece}} ->
        receive_body(request, deadline, max, [pieces, piece], size + byte_size(piece))

      {:http, {^request, :stream_end, _headers}} ->
        {:ok, IO.iodata_to_binary(pieces)}

      {:http, {^request, {{_http, status, phrase}, _headers, _body}}} ->
        {if(status >= 500 or status == 429, do: :retry, else: :error),
         "the server answered #{status} #{phrase}"}

      {:http, {^request, {:error, reason}}} ->
        {:retry, reason(reason)}
    after
      max(deadline - System.monotonic_time(:millisecond), 0) ->
        :ok = :httpc.cancel_request(request, @profile)
        {:retry, "the server took too long"}
    end
  end

  defp reason(:timeout), do: "the server took too long"

  defp reason(reason) when reason in [:socket_closed_remotely, {:shutdown, :server_closed}],
    do: "the connection was cut"

  defp reason({:failed_connect, details}), do: "no connection: #{connect_reason(details)}"
  defp reason(reason), do: inspect(reason)

  defp connect_reason(details) do
    case for {_inet, _options, reason} <- details, do: reason do
      [{:tls_alert, {_name, text}} | _] -> to_string(text)
      [:timeout | _] -> "the server took too long"
      [reason | _] when is_atom(reason) -> "#{:inet.format_error(reason)}"
      _other -> inspect(details)
    end
  end

  ## The environment

  defp http_options(uri, env) do
    direct? = direct?(uri.host || "", variable(env, "NO_PROXY"))

    for {scheme, option} <- [{"http", :proxy}, {"https", :https_proxy}],
        not direct?,
        proxy = proxy_address(scheme, env) do
      :ok = :httpc.set_options([{option, {{to_charlist(proxy.host), proxy.port}, []}}], @profile)
    end

    with {:ok, trusted} <- trusted(uri.scheme, env["HEX_CACERTS_PATH"]) do
      hostname = [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]
      ssl = [verify: :verify_peer, customize_hostname_check: hostname] ++ trusted
      {:ok, [ssl: ssl] ++ proxy_auth(unless(direct?, do: proxy_address(uri.scheme, env)))}
    end
  end

  defp proxy_address(scheme, env) do
    with address when is_binary(address) <- variable(env, String.upcase(scheme || "") <> "_PROXY") do
      address = if address =~ "://", do: address, else: "http://" <> address

      case URI.parse(address) do
        %URI{host: host} = proxy when is_binary(host) and host != "" -> proxy
        _other -> nil
      end
    end
  end

  defp direct?(_host, nil), do: false

  defp direct?(host, list) do
    list
    |> String.split([",", " "], trim: true)
    |> Enum.any?(fn pattern ->
      domain = String.trim_leading(pattern, "*") |> String.trim_leading(".")
      pattern == "*" or host == domain or String.ends_with?(host, "." <> domain)
    end)
  end

  defp variable(env, name) do
    Enum.find_value([name, String.downcase(name)], fn name ->
      if env[name] not in [nil, ""], do: env[name]
    end)
  end

  defp proxy_auth(%URI{userinfo: userinfo}) when is_binary(userinfo) do
    [user | password] = userinfo |> String.split(":", parts: 2) |> Enum.map(&URI.decode/1)
    [proxy_auth: {to_charlist(user), password |> Enum.join() |> to_charlist()}]
  end

  defp proxy_auth(_none), do: []

  defp trusted(scheme, path) when path in [nil, ""] do
    {:ok, [cacerts: :public_key.cacerts_get()]}
  rescue
    _no_certificates ->
      if scheme == "https",
        do:
          {:error,
           "this system has no certificates. Install them (on Debian and Alpine, the package ca-certificates), " <>
             "or set HEX_CACERTS_PATH to a PEM file"},
        else: {:ok, [cacerts: []]}
  end

  defp trusted(_scheme, path) do
    if File.regular?(path),
      do: {:ok, [cacertfile: to_charlist(path)]},
      else: {:error, "HEX_CACERTS_PATH is #{path}, which is not a file"}
  end
end
