defmodule Chatterbex.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://github.com/chatterbex/chatterbex"

  def project do
    [
      app: :chatterbex,
      version: @version,
      elixir: "~> 1.14",
      start_permanent: Mix.env() == :prod,
      elixirc_paths: elixirc_paths(Mix.env()),
      compilers: Mix.compilers() ++ [:chatterbex_native],
      deps: deps(),
      description: description(),
      package: package(),
      name: "Chatterbex",
      source_url: @source_url,
      docs: docs()
    ]
  end

  def application do
    [
      extra_applications: [:logger, :crypto, inets: :optional, ssl: :optional],
      mod: {Chatterbex.Application, []}
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # Nothing here is needed to compile or to test. A machine without Hex builds with no dependency.
  defp deps do
    if Code.ensure_loaded?(Hex) do
      [
        {:telemetry, "~> 1.0", optional: true},
        {:telemetry_metrics, "~> 1.0 or ~> 0.6", optional: true},
        {:plug, "~> 1.14", optional: true},
        {:kino, "~> 0.12", optional: true},
        {:ex_doc, "~> 0.31", only: :dev, runtime: false}
      ] ++ newer()
    else
      []
    end
  end

  # Current versions need a newer Elixir than this library does.
  defp newer do
    if Version.match?(System.version(), ">= 1.15.0") do
      [
        {:phoenix_live_view, "~> 0.20 or ~> 1.0", optional: true},
        {:phoenix_live_dashboard, "~> 0.8", optional: true},
        {:igniter, "~> 0.6", optional: true}
      ]
    else
      []
    end
  end

  defp description do
    "Text-to-speech with Resemble AI's Chatterbox models: PyTorch embedded in the BEAM, on Apple " <>
      "Silicon (MPS), NVIDIA (CUDA) or CPU, with a built-in voice that speaks without any download of weights."
  end

  defp package do
    [
      licenses: ["MIT"],
      links: %{"GitHub" => @source_url, "Changelog" => "#{@source_url}/blob/main/CHANGELOG.md"},
      files:
        ~w(lib priv/python priv/openapi.json priv/playground.html priv/static package.json native/Cargo.toml native/Cargo.lock native/.cargo native/nif
           native/libpython native/audio native/engine native/t3 checksum-*.exs mix.exs .formatter.exs README.md
           CHANGELOG.md LICENSE)
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      extras:
        ["README.md", "CHANGELOG.md"] ++
          Path.wildcard("guides/*.{md,livemd}") ++ Path.wildcard("docs/adr/*.md"),
      groups_for_extras: [Guides: ~r"^guides/", "Design decisions": ~r"^docs/adr/"],
      groups_for_modules: [
        Speaking: [Chatterbex, Chatterbex.Voice, Chatterbex.Error],
        Audio: [Chatterbex.Audio, Chatterbex.Audio.Writer],
        "Speech over HTTP": [
          Chatterbex.HTTP,
          Chatterbex.HTTP.Server,
          Chatterbex.HTTP.Request,
          Chatterbex.HTTP.Response,
          Chatterbex.Plug
        ],
        "Speech in Phoenix": [Chatterbex.LiveView],
        Text: [Chatterbex.Text, Chatterbex.Text.Chunk],
        "What can be asked for": [Chatterbex.Model, Chatterbex.Device, Chatterbex.Options],
        Running: [
          Chatterbex.Pool,
          Chatterbex.Setup,
          Chatterbex.ModelFiles,
          Chatterbex.Doctor,
          Chatterbex.Bench,
          Chatterbex.Prove,
          Chatterbex.Python,
          Chatterbex.Telemetry,
          Chatterbex.LiveDashboard,
          Chatterbex.Test
        ]
      ]
    ]
  end
end
