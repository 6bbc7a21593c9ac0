defmodule Chatterbex.Setup.PipSettingsTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Setup.PipSettings

  @moduletag :tmp_dir

  defp file(dir, name, text) do
    path = Path.join(dir, name)
    File.write!(path, text)
    path
  end

  test "pip's files and variables, the strongest last", %{tmp_dir: dir} do
    site =
      file(dir, "site.conf", """
      # a comment
      [global]
      index-url = https://site.test/simple
      extra-index-url =
          https://a.test/simple
          https://b.test/simple
      timeout: 30
      [install]
      trusted_host = site.test
      """)

    user =
      file(
        dir,
        "user.conf",
        "[install]\r\nindex-url=https://user.test/simple\r\n[list]\r\nformat = columns\r\n"
      )

    assert PipSettings.read([site, user, Path.join(dir, "none")], %{
             "PIP_DEFAULT_TIMEOUT" => "90",
             "PIP_CERT" => ""
           }) == %{
             "index-url" => "https://user.test/simple",
             "extra-index-url" => "https://a.test/simple https://b.test/simple",
             "timeout" => "90",
             "trusted-host" => "site.test"
           }

    assert PipSettings.read([site], %{"PIP_CONFIG_FILE" => "/dev/null", "PIP_NO_INDEX" => "1"}) == %{
             "config-file" => "/dev/null",
             "no-index" => "1"
           }
  end

  test "a file that is no configuration says nothing", %{tmp_dir: dir} do
    for text <- [
          "",
          "nonsense",
          "  = \n [",
          "[global",
          <<0xFF, 0xFE>>,
          " index-url = x",
          "[a]\nx = 1\n[b]\n  y"
        ] do
      assert %{} == PipSettings.read([file(dir, "pip.conf", text)], %{}) |> Map.drop(["x"])
    end
  end

  test "become uv's, where uv has none of its own", %{tmp_dir: dir} do
    pip = %{
      "index-url" => "https://mirror.test/simple",
      "extra-index-url" => "https://a.test/simple  https://b.test/simple",
      "find-links" => "#{dir} /nowhere/at/all https://links.test",
      "no-index" => "true",
      "cert" => "/nowhere/cert.pem"
    }

    assert {set, ["--no-index"]} = PipSettings.for_uv(pip, %{})
    assert set["UV_DEFAULT_INDEX"] == "https://mirror.test/simple"
    assert set["UV_INDEX"] == "https://a.test/simple https://b.test/simple"
    assert set["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert set["UV_FIND_LINKS"] == "#{dir},https://links.test"
    refute Map.has_key?(set, "SSL_CERT_FILE")

    {set, _flags} = PipSettings.for_uv(pip, %{"UV_INDEX_URL" => "https://mine.test"})
    refute Map.has_key?(set, "UV_DEFAULT_INDEX")

    assert PipSettings.for_uv(%{}, %{}) == {%{}, []}
    assert PipSettings.for_uv(%{"no-index" => "false"}, %{}) == {%{}, []}
  end
end
