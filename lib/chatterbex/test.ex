defmodule Chatterbex.Test do
  @moduledoc """
  Speech in the tests of your application, without Python and without a model.

      # config/test.exs
      config :chatterbex, testing: true

  With this, all servers of the VM, including the default one, answer at once with a tone of plausible length: about a
  second for 15 characters. Your supervision tree stays the same. You need no `mix chatterbex.setup`, no download and no
  device. To do this for a single server, give it the option `testing: true`.

  Everything above the model is real: texts, options, languages and voices are checked against the server's `:model`,
  long texts are cut, the queue is bounded, timeouts and cancellation work, and telemetry is sent. A request that the model
  would refuse fails in the test too.

  ## Check requests

      test "greets in a calm voice" do
        MyApp.Greeter.greet("Bob")

        assert [%{function: :generate, text: "Hello, Bob!", options: %{exaggeration: 0.2}}] = Chatterbex.Test.requests()
      end

  `requests/1` returns the requests of this test and of processes that have the test among their `$callers`: those that it
  started with `Task`, and LiveViews under test. So tests can be `async: true`. For other processes, such as a `GenServer`
  of your supervision tree, name the process: `requests(from: pid)`.

  ## Set answers

      test "says that it is busy" do
        Chatterbex.Test.stub({:error, :overloaded})
        assert {:error, "please try again later"} = MyApp.Greeter.greet("Bob")
      end

  A stub applies to the same processes, and ends with its test.

  ## Voices

  `Chatterbex.Voice.clone/2` returns a voice of the right family, which only servers for tests can use.
  `Chatterbex.convert/2` returns a tone as long as its source. Recordings are read and checked as usual.
  """

  alias Chatterbex.{Audio, Error, Options}
  alias Chatterbex.Test.Ledger

  @typedoc """
  A request.

    * `function` - the function of `Chatterbex`, or `clone` of `Chatterbex.Voice`; `stream_to` is a `:stream`
    * `server`, `model` - the server's name or pid, and the model that it stands in for
    * `text` - the text as given; for an Enumerable, the sentences spoken so far, joined with spaces; `nil` if there is no
      text
    * `audio` - the audio to convert or clone, in one channel, otherwise `nil`
    * `options` - the given options and the defaults, without `:server`
  """
  @type request :: %{
          function: :generate | :stream | :convert | :clone,
          server: Chatterbex.server(),
          model: atom,
          text: String.t() | nil,
          audio: Audio.t() | nil,
          options: %{atom => term}
        }

  @typedoc """
  An answer: a tone, silence of the same length, or an error, given as a reason or as a struct.
  """
  @type answer :: :tone | :silence | {:error, Error.reason() | Error.t()}

  @doc """
  The requests of a process, oldest first.

  They are kept until the process ends, up to the last 10,000 requests of all processes together.

  ## Options

  #{Chatterbex.Options.Schema.docs(:test)}

  ## Examples

      {:ok, _audio} = Chatterbex.generate("Hello!", seed: 7)
      [%{function: :generate, text: "Hello!", options: %{seed: 7}}] = Chatterbex.Test.requests()

      iex> Chatterbex.Test.requests()
      []
  """
  @spec requests(keyword) :: [request]
  def requests(options \\ []), do: options |> from() |> Ledger.requests()

  @doc """
  Sets the answer to each piece of a text from now on.

  You can give a function that returns the answer. Its argument is the request, with the sentence or sentences to speak as
  `:piece`. It runs in the server's process, so it must not call that server.

  ## Options

  #{Chatterbex.Options.Schema.docs(:test)}

  ## Examples

      :ok = Chatterbex.Test.stub({:error, :timeout})

      :ok =
        Chatterbex.Test.stub(fn
          %{piece: "Goodbye."} -> {:error, :out_of_memory}
          _request -> :silence
        end)

      iex> Chatterbex.Test.stub({:error, :no_such_reason})
      ** (Chatterbex.Error) a stub must be :tone, :silence, {:error, reason} with a reason of Chatterbex.Error, {:error, error}, or a function of one argument that returns one of these, got {:error, :no_such_reason}
  """
  @spec stub(answer | (map -> answer), keyword) :: :ok
  def stub(answer, options \\ []) do
    if not is_function(answer, 1) and error(answer) == :invalid, do: raise(invalid(answer))
    Ledger.stub(from(options), answer)
  end

  # The error that an answer is; `nil` for sound.
  @doc false
  @spec error(term) :: Error.t() | nil | :invalid
  def error(sound) when sound in [:tone, :silence], do: nil
  def error({:error, %Error{} = error}), do: error

  def error({:error, reason}) do
    if reason in Error.reasons(),
      do: Error.new(reason, "a stub of Chatterbex.Test answers with #{inspect(reason)}"),
      else: :invalid
  end

  def error(_other), do: :invalid

  @doc false
  @spec invalid(term) :: Error.t()
  def invalid(answer) do
    Error.new(
      :invalid_option,
      "a stub must be :tone, :silence, {:error, reason} with a reason of Chatterbex.Error, {:error, error}, or a function " <>
        "of one argument that returns one of these, got #{Options.Schema.show(answer)}"
    )
  end

  defp from(options), do: Error.unwrap!(Options.validate(:test, options)).from || self()
end
