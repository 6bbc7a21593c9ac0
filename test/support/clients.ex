defmodule Chatterbex.Clients do
  @moduledoc """
  OpenAI's client and schemathesis, which `bin/test` installs into an environment of their own.
  """

  @doc """
  The Python that has them, or `nil`.
  """
  def python do
    python = System.get_env("CHATTERBEX_TEST_CLIENTS") || Path.join([home(), "clients", "bin", "python"])
    if File.exists?(python), do: python
  end

  @doc """
  Why they cannot run here, for `@tag skip:`; `false` where they can.
  """
  def missing do
    if python(), do: false, else: "OpenAI's client is not installed: `bin/test` does that"
  end

  defp home do
    System.get_env("CHATTERBEX_HOME") || :filename.basedir(:user_cache, "chatterbex") |> to_string()
  end

  @doc """
  Runs Python code with arguments, and returns `{output, exit_status}`.
  """
  def run(code, arguments) do
    environment = [{"PYTHONDONTWRITEBYTECODE", "1"}, {"NO_PROXY", "*"}]
    System.cmd(python(), ["-c", code | arguments], stderr_to_stdout: true, env: environment)
  end
end
