import Config

path = Path.expand("../test/python", __DIR__)

# The tests' own models, written against the contract that any user's own model is written against.
config :chatterbex,
  models: [
    fake: [python: "fake_model:FakeModel", path: path],
    placed: [python: "fake_model:PlacedModel", path: path]
  ]

config :logger, level: :warning
