defmodule Chatterbex.Setup.Failure do
  @moduledoc false
  # The errors of the setup: what failed, the last output of the tool, what to do.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Command, Interpreter, Request}

  @lines 12

  @doc """
  A tool that failed or did not end.
  """
  @spec tool(String.t(), String.t(), Command.failure(), Request.t()) :: Error.t()
  def tool(what, tool, failure, request) do
    # pip reports each of its five retries.
    lines =
      failure.output
      |> Command.last_lines(@lines)
      |> Enum.dedup_by(&String.slice(&1, 0, 30))
      |> Enum.map(&String.slice(&1, 0, 240))

    said = if lines == [], do: ".", else: ". The last lines of #{tool}:\n#{quoted(lines)}"

    error("#{what} failed: #{tool} #{ended(failure.why)}#{said}", hint(failure), request, %{
      tool: tool,
      why: failure.why,
      output: lines
    })
  end

  @doc """
  No Python that can be embedded.
  """
  @spec no_python([Interpreter.rejected()], [String.t()], String.t(), Request.t()) :: Error.t()
  def no_python(rejected, notes, hint, request) do
    looked = Enum.map(rejected, &"#{&1.path}: #{&1.why}") ++ notes

    found =
      if looked == [],
        do: "no Python was found on this machine.",
        else:
          "no usable Python #{Interpreter.supported()} with a shared library was found:\n#{quoted(looked)}"

    error(found, hint, request, %{rejected: Enum.map(rejected, &Map.take(&1, [:path, :why]))})
  end

  @doc """
  An error of the setup: a sentence, a hint, and the command to run then.
  """
  @spec error(String.t(), String.t(), Request.t(), map) :: Error.t()
  def error(message, hint, request, details \\ %{}) do
    command = Python.setup_command(request.home, Request.again(request))

    Error.new(
      :not_set_up,
      "#{message}\nhint: #{hint}\nThen run: #{command}",
      Map.merge(%{home: request.home, command: command, hint: hint}, details)
    )
  end

  @doc """
  A folder or file that cannot be changed.
  """
  @spec unwritable(Path.t(), File.posix(), Request.t()) :: Error.t()
  def unwritable(path, reason, request) do
    error(
      "#{path} cannot be changed: #{:file.format_error(reason)}.",
      "check who owns it, or give another folder with --path.",
      request,
      %{posix: reason}
    )
  end

  @doc """
  Whether a tool failed because it did not reach the network.
  """
  @spec network?(Command.failure()) :: boolean
  def network?(%{why: {:exit, _status}, output: output}), do: output =~ network()
  def network?(_timeout), do: false

  defp hint(%{why: {:timeout, _milliseconds}}),
    do: "it may go on where it stopped; a slow network or a package index that hangs are the usual causes."

  defp hint(%{output: output}) do
    Enum.find_value(hints(), "the lines above say why; --force starts from nothing.", fn {pattern, hint} ->
      if output =~ pattern, do: hint
    end)
  end

  defp ended({:exit, status}) when status > 128, do: "was killed by signal #{status - 128}"
  defp ended({:exit, status}), do: "ended with exit code #{status}"
  defp ended({:timeout, milliseconds}), do: "had not ended after #{minutes(milliseconds)} and was stopped"

  defp minutes(milliseconds) when milliseconds < 120_000, do: "#{div(milliseconds, 1000)} s"
  defp minutes(milliseconds), do: "#{div(milliseconds, 60_000)} minutes"

  defp quoted(lines), do: Enum.map_join(lines, "\n", &"  | #{&1}")

  # The first pattern that matches the tool's output decides the remedy.
  defp hints do
    [
      {~r/no space left|disk quota|os error 28/i,
       "the disk is full: free some space, or give another folder with --path."},
      {~r/hash(es)?.{0,40}mismatch|mismatch.{0,40}hash|do not match the hashes/is,
       "a downloaded file is not the one that was locked: empty the cache (uv cache clean) and check the index."},
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
      |no\ route\ to\ host|(operation|request|read)\ timed\ out|proxy\ ?error/xi
  end
end
