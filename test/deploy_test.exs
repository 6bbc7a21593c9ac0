defmodule Chatterbex.DeployTest do
  # The files in deploy. There is no Docker where the tests run.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @deploy Path.expand("../deploy", __DIR__)

  test "the Dockerfile copies what is there, and what the build is sent" do
    dockerfile = File.read!(Path.join(@deploy, "Dockerfile"))

    copied =
      for [_line, source] <- Regex.scan(~r/^COPY (?:--chmod=\d+ )?([\w.\/-]+) \S+$/m, dockerfile), do: source

    assert ["native", "mix.exs", "config", "priv", "lib", "deploy/serve"] == copied
    rules = @deploy |> Path.join("Dockerfile.dockerignore") |> File.read!() |> String.split("\n")

    for source <- copied do
      assert File.exists?(Path.join([@deploy, "..", source]))
      assert "!#{source}" in rules
    end
  end

  test "the container sets up Python, and then serves with the options that it was given", %{tmp_dir: dir} do
    mix = Path.join(dir, "mix")
    File.write!(mix, ~S(#!/bin/sh
echo "mix $*"
[ "$1" != "$FAILS" ]))
    File.chmod!(mix, 0o755)

    serve = fn env ->
      env = [{"PATH", dir <> ":" <> System.get_env("PATH")} | env]
      System.cmd(Path.join(@deploy, "serve"), ["--model", "turbo"], env: env)
    end

    served = "mix chatterbex.serve --ip 0.0.0.0 --port 4000 --model turbo\n"
    assert serve.([{"CHATTERBEX_SETUP", nil}]) == {"mix chatterbex.setup\n" <> served, 0}

    assert serve.([{"CHATTERBEX_SETUP", "--cuda --models turbo"}]) ==
             {"mix chatterbex.setup --cuda --models turbo\n" <> served, 0}

    assert {"mix chatterbex.setup\n", 1} = serve.([{"CHATTERBEX_SETUP", nil}, {"FAILS", "chatterbex.setup"}])
  end

  @tag skip:
         unless(System.find_executable("systemd-analyze") && File.exists?("/usr/bin/mix"),
           do: "there is no systemd-analyze, or no /usr/bin/mix"
         ) || false
  test "systemd accepts the unit" do
    {said, status} =
      System.cmd("systemd-analyze", ["verify", Path.join(@deploy, "chatterbex.service")],
        stderr_to_stdout: true
      )

    assert status == 0, said
    refute said =~ "chatterbex.service:", said
  end
end
