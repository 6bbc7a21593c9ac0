import Config

# The tests' own model, written against the contract that any user's own model is written against.
config :chatterbex,
  models: [fake: [python: "fake_model:FakeModel", path: Path.expand("../test/python", __DIR__)]]

config :logger, level: :warning
