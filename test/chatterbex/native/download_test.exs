defmodule Chatterbex.Native.DownloadTest do
  # Alone: :httpc has one profile for all downloads of the VM.
  use ExUnit.Case, async: false

  import Chatterbex.ArchiveServer, only: [certificate: 2, cut: 2, response: 2, response: 3]

  alias Chatterbex.{ArchiveServer, Native.Download}

  @moduletag :tmp_dir

  defp get(url, env \\ %{}, options \\ %{}),
    do: Download.get(url, Map.merge(%{env: env, max: 100_000, wait: 0}, options))

  defp serve(answer), do: "http://127.0.0.1:#{ArchiveServer.start(answer)}/file"

  defp requests(count \\ 0) do
    receive do
      {:request, _method, _path, _headers} -> requests(count + 1)
    after
      0 -> count
    end
  end

  test "fetches a file" do
    body = :crypto.strong_rand_bytes(90_000)
    assert get(serve(fn _ -> response(200, body) end)) == {:ok, body}
    assert_received {:request, "GET", "/file", %{"host" => "127.0.0.1" <> _}}
  end

  test "follows a redirect, as a release's page answers with" do
    there = serve(fn _ -> response(200, "body") end)
    assert get(serve(fn _ -> response(302, "", [{"location", there}]) end)) == {:ok, "body"}
  end

  test "404 is an error at once" do
    assert get(serve(fn _ -> response(404, "no") end)) == {:error, "the server answered 404 Phrase"}
    assert requests() == 1
  end

  test "an error that may pass is tried three times" do
    assert get(serve(fn _ -> response(503, "") end)) == {:error, "the server answered 503 Phrase"}
    assert requests() == 3

    counter = :counters.new(1, [])

    answer = fn _ ->
      :counters.add(counter, 1, 1)
      if :counters.get(counter, 1) < 3, do: cut("a body", 2), else: response(200, "a body")
    end

    assert get(serve(answer)) == {:ok, "a body"}
  end

  test "a connection that is cut is an error, before the answer and within it" do
    assert get(serve(fn _ -> "" end)) == {:error, "the connection was cut"}

    assert get(serve(fn _ -> cut(:binary.copy("x", 50_000), 20_000) end)) ==
             {:error, "the connection was cut"}
  end

  test "a server that does not answer, or stops in the middle, is given up" do
    short = %{timeout: 100}
    assert get(serve(fn _ -> {:hang, ""} end), %{}, short) == {:error, "the server took too long"}

    assert get(serve(fn _ -> {:hang, cut("a body", 2)} end), %{}, short) ==
             {:error, "the server took too long"}
  end

  test "no server is an error that says so" do
    {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(listener)
    :gen_tcp.close(listener)

    assert get("http://127.0.0.1:#{port}/") == {:error, "no connection: connection refused"}
    assert {:error, "no connection: " <> _} = get("http://name.invalid/")
  end

  test "a file larger than allowed is given up" do
    big = :binary.copy("x", 100_001)
    assert get(serve(fn _ -> response(200, big) end)) == {:error, "the file is larger than 100000 bytes"}

    assert get(serve(fn _ -> ["HTTP/1.1 200 OK\r\n\r\n", big] end)) ==
             {:error, "the file is larger than 100000 bytes"}

    refute_received {:http, _}
  end

  describe "a proxy" do
    test "is asked, with its password" do
      proxy = ArchiveServer.start(fn _ -> response(200, "by proxy") end)

      for name <- ~w(HTTP_PROXY http_proxy), scheme <- ["http://", ""] do
        env = %{name => "#{scheme}ann:p%40ss@127.0.0.1:#{proxy}"}
        assert get("http://releases.invalid/file", env) == {:ok, "by proxy"}
        assert_received {:request, "GET", "http://releases.invalid/file", headers}
        assert headers["proxy-authorization"] == "Basic " <> Base.encode64("ann:p@ss")
      end
    end

    test "is not asked for hosts in NO_PROXY" do
      proxy = "http://127.0.0.1:#{ArchiveServer.start(fn _ -> response(200, "by proxy") end)}"
      url = serve(fn _ -> response(200, "direct") end)

      for list <- ["127.0.0.1", "a.example, 127.0.0.1", "*"],
          do: assert(get(url, %{"HTTP_PROXY" => proxy, "NO_PROXY" => list}) == {:ok, "direct"})

      for list <- ["example", ".0.0.2", ""],
          do: assert(get(url, %{"HTTP_PROXY" => proxy, "no_proxy" => list}) == {:ok, "by proxy"})

      env = %{"HTTP_PROXY" => proxy, "NO_PROXY" => ".releases.invalid"}
      assert {:error, "no connection: " <> _} = get("http://a.releases.invalid/", env)
      # The settings are those of one download.
      assert get(url) == {:ok, "direct"}
    end

    test "leads to a server with TLS, and sees nothing of what is fetched", %{tmp_dir: dir} do
      {tls, pem} = certificate("localhost", dir)
      port = ArchiveServer.start(fn _ -> response(200, "secret") end, tls: tls)
      proxy = ArchiveServer.start(fn {"CONNECT", _, _} -> {:tunnel, port} end)
      env = %{"HTTPS_PROXY" => "http://127.0.0.1:#{proxy}", "HEX_CACERTS_PATH" => pem}

      assert get("https://localhost:#{port}/file", env) == {:ok, "secret"}
      assert_received {:request, "CONNECT", "localhost:" <> _, _}
      assert_received {:request, "GET", "/file", _}
    end
  end

  describe "certificates" do
    test "of the file in HEX_CACERTS_PATH are trusted, for the host that they name", %{tmp_dir: dir} do
      {tls, pem} = certificate("localhost", dir)
      port = ArchiveServer.start(fn _ -> response(200, "body") end, tls: tls)
      assert get("https://localhost:#{port}/", %{"HEX_CACERTS_PATH" => pem}) == {:ok, "body"}

      {tls, pem} = certificate("other.example", dir)
      port = ArchiveServer.start(fn _ -> response(200, "body") end, tls: tls)
      assert {:error, message} = get("https://localhost:#{port}/", %{"HEX_CACERTS_PATH" => pem})
      assert message =~ "no connection: "
      assert message =~ "hostname_check_failed" or message =~ "Handshake Failure"
    end

    test "that nobody of the system's signed are refused", %{tmp_dir: dir} do
      {tls, _pem} = certificate("localhost", dir)
      port = ArchiveServer.start(fn _ -> response(200, "body") end, tls: tls)
      assert {:error, message} = get("https://localhost:#{port}/")
      assert message =~ "Unknown CA" or message =~ "no certificates"
    end

    test "need the file that is named" do
      assert get("https://localhost/", %{"HEX_CACERTS_PATH" => "/nowhere.pem"}) ==
               {:error, "HEX_CACERTS_PATH is /nowhere.pem, which is not a file"}
    end
  end
end
