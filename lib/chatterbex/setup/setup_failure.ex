defmodule Chatterbex.Setup.SetupFailure do
  @moduledoc false
  # The errors of the setup: what failed, the last output of the tool, what to do, and the command to run then.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{SetupRun, Subprocess}

  @lines 12

  @doc "An error: a sentence, a hint, and the command to run then."
  @spec error(String.t(), String.t(), SetupRun.t(), map) :: Error.t()
  def error(message, hint, run, details \\ %{}) do
    command = Python.setup_command(run.home, again(run))

    Error.new(
      :not_set_up,
      "#{message}\nhint: #{hint}\nThen run: #{command}",
      Map.merge(%{home: run.home, command: command, hint: hint}, details)
    )
  end

  # The options of the command to run again.
  defp again(run) do
    for name <- [:device, :torch, :models, :languages],
        value = Map.fetch!(run, name),
        value != [],
        do: {name, value}
  end

  @doc "A program that failed, or did not end, in the step with this title."
  @spec program(String.t(), Subprocess.failure(), SetupRun.t()) :: Error.t()
  def program(title, %{tool: tool, why: why, output: output} = failure, run) do
    # pip reports each of its five retries.
    lines =
      output
      |> Subprocess.last_lines(@lines)
      |> Enum.dedup_by(&String.slice(&1, 0, 30))
      |> Enum.map(&String.slice(&1, 0, 240))

    said = if lines == [], do: ".", else: ". The last lines of #{tool}:\n#{quoted(lines)}"
    details = %{tool: tool, why: why, output: lines}
    error("#{title} failed: #{tool} #{ended(why)}#{said}", hint(failure), run, details)
  end

  @doc "A folder or file that cannot be changed."
  @spec unwritable(Path.t(), File.posix(), SetupRun.t()) :: Error.t()
  def unwritable(path, reason, run) do
    user = System.get_env("USER", "this user")
    hint = "let #{user} write there, or give another folder with --path or CHATTERBEX_HOME."
    error("#{path} cannot be written: #{:file.format_error(reason)}.", hint, run, %{posix: reason})
  end

  @doc "Lines of a message, set off from the rest."
  @spec quoted([String.t()]) :: String.t()
  def quoted(lines), do: Enum.map_join(lines, "\n", &"  | #{&1}")

  @doc "Whether a program failed because it did not reach the network."
  @spec network?(Subprocess.failure()) :: boolean
  def network?(%{why: {:exit, _status}, output: output}), do: output =~ network()
  def network?(_other), do: false

  defp ended({:exit, status}) when status > 128, do: "was killed by signal #{status - 128}"
  defp ended({:exit, status}), do: "ended with exit code #{status}"
  defp ended(:no_answer), do: "gave no answer"
  defp ended({:timeout, ms}) when ms < 120_000, do: "had not ended after #{div(ms, 1000)} s and was stopped"
  defp ended({:timeout, ms}), do: "had not ended after #{div(ms, 60_000)} minutes and was stopped"

  defp hint(%{why: {:timeout, _milliseconds}}),
    do: "the next run continues where it stopped; a slow network or an index that hangs are the usual causes."

  defp hint(%{output: output}) do
    Enum.find_value(hints(), "the lines above say why; --force starts from nothing.", fn {pattern, hint} ->
      if output =~ pattern, do: hint
    end)
  end

  # The first pattern that matches the output decides.
  defp hints do
    [
      {~r/no space left|disk quota|os error 28/i,
       "the disk is full: free some space, or give another folder with --path."},
      {~r/hash(es)?.{0,40}mismatch|mismatch.{0,40}hash|do not match the hashes/is,
       "a downloaded file is not the one that was locked: empty the cache (uv cache clean) and check the index."},
      {~r/ensurepip|no module named venv/i,
       "install what Python makes environments with (on Debian: sudo apt-get install -y python3-venv), or uv."},
      {~r/permission denied|os error 13|read-only file system/i,
       "a file may not be written: check who owns the folder, or give another one with --path."},
      {~r/invalid peer certificate|certificate verify failed|unknownissuer|SSLError/i,
       "the index's certificate is not trusted: name your network's in SSL_CERT_FILE (uv) and PIP_CERT (pip)."},
      {network(),
       "the package index was not reached: check the network, HTTPS_PROXY, and the index (UV_DEFAULT_INDEX, " <>
         "PIP_INDEX_URL)."},
      {~r/no wheels? with a matching|no matching distribution|no solution found|not found in the package registry/i,
       "the index has no fitting package: check the index (UV_DEFAULT_INDEX, PIP_INDEX_URL) and the platform."}
    ]
  end

  # Phrases of uv, pip and the resolver, not single words: the output has paths and package names in it.
  defp network do
    ~r/dns\ error|lookup\ address|name\ resolution|name\ or\ service\ not\ known|nodename\ nor\ servname
      |failed\ to\ (fetch|download)|error\ sending\ request|client\ error\ \(connect\)
      |connection\ (error|refused|reset|aborted|broken|timed\ out)|connection\ to\ \S+\ timed\ out
      |connecttimeout|readtimeout|newconnectionerror|maxretryerror|network\ is\ unreachable
      |network\ was\ disabled|no\ route\ to\ host|(operation|request|read)\ timed\ out|proxy\ ?error/xi
  end
end
