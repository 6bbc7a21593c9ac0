if Code.ensure_loaded?(Phoenix.LiveDashboard.Router) do
  defmodule Chatterbex.LiveDashboardTest.Router do
    use Phoenix.Router
    import Phoenix.LiveDashboard.Router

    pipeline :browser do
      plug(:fetch_session)
    end

    scope "/" do
      pipe_through(:browser)
      live_dashboard("/dashboard", additional_pages: [speech: Chatterbex.LiveDashboard])
    end
  end

  defmodule Chatterbex.LiveDashboardTest.Endpoint do
    use Phoenix.Endpoint, otp_app: :phoenix_live_dashboard

    plug(Plug.Session, store: :cookie, key: "_key", signing_salt: "a-signing-salt")
    plug(Chatterbex.LiveDashboardTest.Router)
  end

  defmodule Chatterbex.LiveDashboardTest do
    use ExUnit.Case, async: false

    import Chatterbex.TestHelp, only: [start_fake: 1]
    import Phoenix.ConnTest
    import Phoenix.LiveViewTest

    alias Chatterbex.Telemetry.Recent

    @endpoint Chatterbex.LiveDashboardTest.Endpoint

    setup_all do
      for app <- [:phoenix, :phoenix_live_view, :phoenix_live_dashboard, :telemetry],
          do: {:ok, _apps} = Application.ensure_all_started(app)

      Application.put_env(:phoenix_live_dashboard, @endpoint,
        secret_key_base: String.duplicate("a", 64),
        live_view: [signing_salt: "a-signing-salt"],
        pubsub_server: Chatterbex.LiveDashboardTest.PubSub
      )

      on_exit(fn -> Application.delete_env(:phoenix_live_dashboard, @endpoint) end)
      start_supervised!({Phoenix.PubSub, name: Chatterbex.LiveDashboardTest.PubSub})
      start_supervised!(@endpoint)
      :ok
    end

    test "the page shows what a server does, and how fast it was" do
      # The application runs it where there is a dashboard.
      assert Process.whereis(Recent)
      start_fake(name: :dashboard_speech, device: "mps")
      assert {:ok, _audio} = Chatterbex.generate(:dashboard_speech, "notice")
      assert [_ | _] = :dashboard_speech |> Chatterbex.stream("One.") |> Enum.to_list()

      Chatterbex.Telemetry.execute([:chatterbex, :generate, :stop], %{rtf: 0.25, tokens_per_second: 123.4}, %{
        server: :dashboard_speech
      })

      {:ok, page, _html} = live(build_conn(), "/dashboard/speech")
      html = page |> element("#chatterbex-servers") |> render()

      for shown <-
            ~w(:dashboard_speech :fake ready) ++ ["cpu instead of mps", "0.25", "123.4", "First audio (ms)"],
          do: assert(html =~ shown)

      assert render(page) =~ "Chatterbex"
    end

    test "a search finds servers by their names" do
      for server <- [:searched_speech, :other_speech],
          do: Chatterbex.Telemetry.execute([:chatterbex, :generate, :stop], %{}, %{server: server})

      {:ok, page, _html} = live(build_conn(), "/dashboard/speech?search=Searched")
      html = page |> element("#chatterbex-servers") |> render()
      assert html =~ ":searched_speech"
      refute html =~ ":other_speech"
    end
  end
else
  defmodule Chatterbex.LiveDashboardTest do
    use ExUnit.Case

    @tag skip: "Phoenix LiveDashboard is not installed"
    test "the page shows what a server does, and how fast it was" do
    end
  end
end
