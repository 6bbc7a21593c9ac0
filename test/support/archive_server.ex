defmodule Chatterbex.ArchiveServer do
  @moduledoc """
  A web server on the loopback for the tests of downloads: it answers with the bytes that a function returns, and can be
  a proxy.
  """

  import ExUnit.Callbacks

  @timeout 10_000

  @doc """
  Starts a server. `answer` gets `{method, path, headers}` and returns the bytes of the whole response, after which the
  connection is closed; `{:tunnel, port}` joins the client with a port of this machine, as a proxy does; `{:hang, bytes}`
  sends these and then nothing until the client goes. Each request is sent to the test as `{:request, method, path, headers}`.

  With `:tls`, a list of options for `:ssl.listen/2`, it speaks TLS.
  """
  def start(answer, options \\ []) do
    test = self()
    {:ok, agent} = Agent.start_link(fn -> listen(options[:tls]) end)
    {transport, listener, port} = Agent.get(agent, & &1)
    acceptor = spawn_link(fn -> accept(transport, listener, answer, test) end)

    on_exit(fn ->
      Process.unlink(acceptor)
      Process.exit(acceptor, :kill)
    end)

    port
  end

  defp listen(nil) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, reuseaddr: true, backlog: 16])

    {:ok, port} = :inet.port(listener)
    {:gen_tcp, listener, port}
  end

  defp listen(tls) do
    {:ok, _} = Application.ensure_all_started(:ssl)
    {:ok, listener} = :ssl.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, log_level: :none] ++ tls)
    {:ok, {_ip, port}} = :ssl.sockname(listener)
    {:ssl, listener, port}
  end

  defp accept(transport, listener, answer, test) do
    case next(transport, listener) do
      {:ok, socket} -> serve(transport, socket, answer, test)
      {:error, _refused} -> :ok
    end

    accept(transport, listener, answer, test)
  end

  defp next(:gen_tcp, listener), do: :gen_tcp.accept(listener)

  defp next(:ssl, listener) do
    with {:ok, socket} <- :ssl.transport_accept(listener), do: :ssl.handshake(socket, @timeout)
  end

  defp serve(transport, socket, answer, test) do
    with {:ok, {method, path, headers}} <- head(transport, socket, "") do
      send(test, {:request, method, path, headers})

      case answer.({method, path, headers}) do
        {:hang, bytes} ->
          transport.send(socket, bytes)
          transport.recv(socket, 0, @timeout)

        {:tunnel, port} ->
          {:ok, upstream} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
          :ok = :gen_tcp.send(socket, "HTTP/1.1 200 Connection established\r\n\r\n")
          back = spawn_link(fn -> pipe(upstream, socket) end)
          :ok = :gen_tcp.controlling_process(upstream, back)
          pipe(socket, upstream)

        bytes ->
          transport.send(socket, bytes)
      end
    end

    transport.close(socket)
  end

  defp pipe(from, to) do
    with {:ok, bytes} <- :gen_tcp.recv(from, 0, @timeout), :ok <- :gen_tcp.send(to, bytes), do: pipe(from, to)
  end

  defp head(transport, socket, read) do
    case String.split(read, "\r\n\r\n", parts: 2) do
      [head, _body] ->
        [request | headers] = String.split(head, "\r\n")
        [method, path, _version] = String.split(request, " ")
        {:ok, {method, path, Map.new(headers, &header/1)}}

      [_part] ->
        with {:ok, more} <- transport.recv(socket, 0, @timeout), do: head(transport, socket, read <> more)
    end
  end

  defp header(line) do
    [name, value] = String.split(line, ":", parts: 2)
    {String.downcase(name), String.trim(value)}
  end

  @doc """
  The bytes of a response.
  """
  def response(status, body, headers \\ []) do
    headers = [{"content-length", byte_size(body)} | headers]

    [
      "HTTP/1.1 #{status} Phrase\r\n",
      for({name, value} <- headers, do: "#{name}: #{value}\r\n"),
      "\r\n",
      body
    ]
  end

  @doc """
  The bytes of a response whose connection is cut after some of its body.
  """
  def cut(body, bytes) do
    ["HTTP/1.1 200 OK\r\ncontent-length: #{byte_size(body)}\r\n\r\n", binary_part(body, 0, bytes)]
  end

  @doc """
  Options for `:tls` with a certificate for `host`, and a PEM file in `folder` of who signed it.
  """
  def certificate(host, folder) do
    name = {:Extension, {2, 5, 29, 17}, false, [{:dNSName, to_charlist(host)}]}
    key = [key: {:namedCurve, :secp256r1}, digest: :sha256]
    chain = %{root: key, intermediates: [], peer: key ++ [extensions: [name]]}
    data = :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})

    pem = Path.join(folder, "#{host}.pem")
    entries = for der <- data.client_config[:cacerts], do: {:Certificate, der, :not_encrypted}
    File.write!(pem, :public_key.pem_encode(entries))
    {Keyword.take(data.server_config, [:cert, :key, :cacerts]), pem}
  end
end
