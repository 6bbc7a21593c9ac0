defmodule Mix.Tasks.Chatterbex.Serve do
  @shortdoc "Serves speech over HTTP, compatible with OpenAI's API"

  @moduledoc """
  Serves speech over HTTP, compatible with OpenAI's API.

      $ mix chatterbex.serve
      $ mix chatterbex.serve --port 4000 --model turbo --voices priv/voices
      $ CHATTERBEX_API_KEY=secret mix chatterbex.serve --ip 0.0.0.0

  Give clients of OpenAI's API the base URL `http://127.0.0.1:4000/v1`. `Chatterbex.HTTP` describes the API.

  By default it only accepts connections from this machine. With `--ip` others can reach it, and every request must carry
  an API key. It has no TLS: on a network, put a proxy with TLS in front of it.

  ## Options

    * `-p`, `--port PORT` - the port to listen on (default 4000); 0 picks a free one
    * `--ip ADDRESS` - the address to listen on (default 127.0.0.1); `0.0.0.0` and `::` mean all addresses of the machine
    * `--api-key KEY` - the key that requests must carry. Other users of the machine can see it in the list of
      processes; to hide it, set the variable `CHATTERBEX_API_KEY` instead
    * `--no-api-key` - accept requests without a key from other machines too
    * `--cors ORIGIN` - the origin of web pages that may call the API, as in `https://example.com`, or `*`
    * `--add-voices` - let clients add voices from recordings to the folder of voices
    * `--pass-unknown` - pass fields that OpenAI does not have, such as `seed` and `temperature`, on to the model
    * `--max-input NUMBER` - how long a text may be, in characters (default 4096)
    * `--max-requests NUMBER` - how many speech requests may run at a time (default 100)
    * `--max-queue NUMBER` - how many requests may wait for the model (default 200)
    * `-m`, `--model NAME` - the model (default `hibari`, the built-in voice)
    * `-d`, `--device DEVICE` - `auto`, `cpu`, `mps`, `cuda` or `cuda:N` (default `auto`)
    * `--voices DIR` - the folder of voices
    * `--checkpoint DIR` - a folder with the model's files
    * `--download` - fetch missing files of the model
    * `--home DIR` - the folder that you gave to `mix chatterbex.setup --path`

  Press Ctrl-C twice to end it at once. The signal TERM lets running requests finish first.
  """

  use Mix.Task

  alias Chatterbex.{CommandLine, Error, HTTP}

  @speech [:model, :device, :voices, :checkpoint, :download, :home, :max_queue]
  @http [:port, :ip, :cors, :add_voices, :max_input, :max_requests]

  @switches [
    port: :integer,
    ip: :string,
    api_key: :string,
    no_api_key: :boolean,
    cors: :string,
    add_voices: :boolean,
    pass_unknown: :boolean,
    max_input: :integer,
    max_requests: :integer,
    max_queue: :integer,
    model: :string,
    device: :string,
    voices: :string,
    checkpoint: :string,
    download: :boolean,
    home: :string,
    help: :boolean
  ]

  @aliases [p: :port, m: :model, d: :device, h: :help]

  @impl true
  def run(arguments),
    do: CommandLine.run(arguments, __MODULE__, [strict: @switches, aliases: @aliases], &serve/1)

  defp serve(options) do
    CommandLine.start()
    Logger.configure(level: :info)

    with {:ok, key} <- api_key(options),
         {:ok, speech} <- child({Chatterbex, Keyword.take(options, @speech)}),
         {:ok, web} <- child({HTTP.Server, http(options, key, speech)}) do
      Mix.shell().info("Listening on #{url(options, HTTP.Server.port(web))}. The model is being loaded.")

      case Chatterbex.await_ready(server: speech) do
        :ok -> Mix.shell().info("Ready.")
        {:error, error} -> Mix.shell().error("The model cannot be loaded: #{error.message}")
      end

      Process.sleep(:infinity)
    else
      {:error, %Error{message: message}} ->
        remove(Chatterbex)
        Mix.raise(message)
    end
  end

  # Stops the speech server if the web server could not start.
  defp remove(id) do
    with :ok <- Supervisor.terminate_child(Chatterbex.Supervisor, id),
         do: Supervisor.delete_child(Chatterbex.Supervisor, id)
  end

  defp http(options, key, speech) do
    unknown = if options[:pass_unknown], do: :pass, else: :reject
    Keyword.take(options, @http) ++ [server: speech, api_key: key, unknown_fields: unknown]
  end

  # Under the library's own supervisor, so that a VM that stops stops them in order.
  defp child(spec) do
    with {:error, reason} <- Supervisor.start_child(Chatterbex.Supervisor, spec), do: {:error, error(reason)}
  end

  defp error(%Error{} = error), do: error
  defp error({%Error{} = error, _child}), do: error
  defp error(reason), do: Error.new(:not_running, "cannot listen: #{why(reason)}")

  defp why({:shutdown, reason}), do: why(reason)
  defp why({:failed_to_start_child, _listener, reason}), do: why(reason)

  defp why({:not_listening, ip, port, posix}),
    do: "#{:inet.ntoa(ip)} port #{port}: #{:inet.format_error(posix)} (#{posix})"

  defp why({reason, _child}), do: why(reason)
  defp why(reason), do: Chatterbex.Options.Schema.show(reason)

  defp api_key(options) do
    ip = Keyword.get(options, :ip, "127.0.0.1")

    case options[:api_key] || System.get_env("CHATTERBEX_API_KEY") do
      key when key not in [nil, ""] ->
        {:ok, key}

      _none ->
        if loopback?(ip) or options[:no_api_key],
          do: {:ok, nil},
          else:
            {:error,
             Error.new(
               :invalid_option,
               "#{ip} can be reached from other machines: set CHATTERBEX_API_KEY to a key that requests must carry, or " <>
                 "give --no-api-key to accept all requests"
             )}
    end
  end

  defp loopback?(ip), do: ip in ["localhost", "::1"] or String.starts_with?(ip, "127.")

  defp url(options, port) do
    ip = Keyword.get(options, :ip, "127.0.0.1")
    "http://#{if String.contains?(ip, ":"), do: "[#{ip}]", else: ip}:#{port}"
  end
end
