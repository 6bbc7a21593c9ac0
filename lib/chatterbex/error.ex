defmodule Chatterbex.Error do
  @moduledoc """
  What went wrong, as a value.

  Every function of this library that can fail returns `{:error, %Chatterbex.Error{}}`; the bang versions raise it.
  `message` says what was wrong, what was expected and what to do. `reason` is for programs to match on. `details` holds
  the values in the message.

      iex> {:error, error} = Chatterbex.generate("")
      iex> error.reason
      :invalid_text

  ## Reasons

  | reason | meaning |
  |---|---|
  | `:invalid_option` | an option is unknown, of the wrong type or out of range |
  | `:invalid_text` | the text is empty, unspeakable, too long or not valid UTF-8 |
  | `:invalid_audio` | the audio's bytes are not what they claim to be |
  | `:unknown_model` | no model has this name |
  | `:unknown_language` | the model does not speak this language |
  | `:voice_unreadable` | the reference audio of a voice cannot be read |
  | `:voice_too_short` | the reference audio of a voice is too short |
  | `:not_supported` | the model cannot do this |
  | `:not_set_up` | the Python environment is missing or incomplete: run `mix chatterbex.setup` |
  | `:native_not_loaded` | a native library is missing or does not load |
  | `:model_files_missing` | files of the model are not on this machine |
  | `:model_load_failed` | the model's files exist but cannot be loaded |
  | `:device_unavailable` | the device cannot be used, and fallback was refused |
  | `:out_of_memory` | the device or the machine has too little memory |
  | `:overloaded` | the server has as many open requests as it accepts |
  | `:not_running` | no server has this name, or the application `:chatterbex` is not running |
  | `:noconnection` | the server's node cannot be reached, or was lost before it answered |
  | `:timeout` | the request took longer than its timeout or deadline |
  | `:cancelled` | the request was cancelled or its server was stopped |
  | `:engine_crashed` | the model, its thread or the server's process failed as a whole |
  | `:generation_failed` | this request failed inside the model |
  | `:file_error` | a file cannot be read or written |

  ## What to retry

  The same request may succeed later if the reason is `:overloaded` (wait a moment, or use another server),
  `:not_running` (its supervisor may be restarting it), `:noconnection` or `:engine_crashed`. After `:noconnection` and
  `:engine_crashed` the server may have spoken the text without your receiving it; speaking it twice does no harm. A
  request that failed with `:timeout` may succeed with a longer `:timeout` or a later `:deadline`. With any other reason it
  fails again until you change the request, the setup or the machine.
  """

  @reasons [
    :invalid_option,
    :invalid_text,
    :invalid_audio,
    :unknown_model,
    :unknown_language,
    :voice_unreadable,
    :voice_too_short,
    :not_supported,
    :not_set_up,
    :native_not_loaded,
    :model_files_missing,
    :model_load_failed,
    :device_unavailable,
    :out_of_memory,
    :overloaded,
    :not_running,
    :noconnection,
    :timeout,
    :cancelled,
    :engine_crashed,
    :generation_failed,
    :file_error
  ]

  @by_name Map.new(@reasons, &{Atom.to_string(&1), &1})

  defexception [:reason, :message, details: %{}]

  @typedoc "Why it failed. The module documentation lists what each one means."
  @type reason ::
          unquote(Enum.reduce(Enum.reverse(@reasons), fn reason, rest -> {:|, [], [reason, rest]} end))

  @type t :: %__MODULE__{reason: reason, message: String.t(), details: map}

  @doc """
  All reasons.

  ## Examples

      iex> :timeout in Chatterbex.Error.reasons()
      true
  """
  @spec reasons() :: [reason]
  def reasons, do: @reasons

  @doc false
  @spec new(reason, String.t(), map) :: t
  def new(reason, message, details \\ %{}) when reason in @reasons and is_binary(message) do
    %__MODULE__{reason: reason, message: message, details: details}
  end

  # For functions with a bang.
  @doc false
  @spec unwrap!({:ok, value} | {:error, t}) :: value when value: term
  def unwrap!({:ok, value}), do: value
  def unwrap!({:error, error}), do: raise(error)

  # Native code reports errors in two forms: a NIF's return value and an engine's event.
  @doc false
  @spec from_native({atom, String.t(), map} | map) :: t
  def from_native({reason, message, details}) when reason in @reasons, do: new(reason, message, details)

  def from_native(%{"reason" => reason, "message" => message} = payload) do
    details = Map.get(payload, "details") || %{}
    new(Map.get(@by_name, reason, :generation_failed), message, Chatterbex.Names.atoms(details))
  end
end
