defmodule Chatterbex.Test do
  @moduledoc """
  Speech in the tests of your application, without Python and without a model.

      # config/test.exs
      config :chatterbex, testing: true

  From then on all servers of the VM, the default one included, answer at once with a tone of plausible length: about
  a second for 15 characters. Your supervision tree stays as it is. `mix chatterbex.setup` need not have run, no model is
  downloaded, and no device is used. A single server does the same with `testing: true` among its options.

  Everything above the model is real: texts, options, languages and voices are checked against the server's `:model`,
  long texts are cut, the queue is bounded, timeouts and cancellation work, telemetry is sent. What the model would refuse,
  the test refuses.

  ## What was asked

      test "greets in a calm voice" do
        MyApp.Greeter.greet("Bob")

        assert [%{function: :generate, text: "Hello, Bob!", options: %{exaggeration: 0.2}}] = Chatterbex.Test.requests()
      end

  `requests/1` tells what this test has asked, and what processes have asked that it started with `Task`, as well as
  LiveViews under test: those that have the test among their `$callers`. So tests may be `async: true`. For other
  processes, such as a `GenServer` of your supervision tree, name the process: `requests(from: pid)`.

  ## What is answered

      test "says that it is busy" do
        Chatterbex.Test.stub({:error, :overloaded})
        assert {:error, "please try again later"} = MyApp.Greeter.greet("Bob")
      end

  A stub is for the same processes, and ends with its test.

  ## Voices

  `Chatterbex.Voice.clone/2` gives a voice of the right family, which only servers for tests can speak in, and
  `Chatterbex.convert/2` a tone as long as its source. Recordings are read and checked as ever.
  """

  alias Chatterbex.{Audio, Error, Options}
  alias Chatterbex.Test.Ledger

  @typedoc """
  What was asked.

    * `function` - of `Chatterbex`, or `clone` of `Chatterbex.Voice`; `stream_to` is a `:stream`
    * `server`, `model` - the server's name or pid, and the model that it stands for
    * `text` - as it was given; of an Enumerable, the sentences that were spoken so far, with spaces between them; `nil`
      where there is none
    * `audio` - what was converted or cloned, in one channel, else `nil`
    * `options` - those that were given and the defaults, without `:server`
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
  What is answered: a tone, silence of the same length, or an error, by its reason or as it is.
  """
  @type answer :: :tone | :silence | {:error, Error.reason() | Error.t()}

  @doc """
  The requests of a process, oldest first.

  They are kept until the process ends; of all processes together, the last 10,000.

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
  Says what is answered from now on, for each piece of a text.

  An answer may be a function that gives one. It gets the request, with the sentence or sentences that are to be spoken as
  `:piece`, and runs in the server's process: it must not call that server.

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
      ** (Chatterbex.Error) a stub must be :tone, :silence, {:error, reason} with a reason of Chatterbex.Error, {:error, error}, or a function of one argument that gives one of these, got {:error, :no_such_reason}
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
        "of one argument that gives one of these, got #{Options.Schema.show(answer)}"
    )
  end

  defp from(options), do: Error.unwrap!(Options.validate(:test, options)).from || self()
end
