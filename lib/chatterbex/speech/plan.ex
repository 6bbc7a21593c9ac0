defmodule Chatterbex.Speech.Plan do
  @moduledoc false
  # A request without its text: its options, checked against the server's model and in the form that the model needs.

  alias Chatterbex.{Client, Error, Model, Options, Test, Text, Voice}
  alias Chatterbex.Options.Schema

  # How long a running server may take to describe itself.
  @about_timeout 60_000

  # The longest timeout of a timer, in milliseconds: 49 days.
  @longest 0xFFFFFFFF

  @enforce_keys [
    :server,
    :model,
    :parallel,
    :max_characters,
    :timeout,
    :deadline,
    :priority,
    :resume,
    :options,
    :text
  ]
  defstruct @enforce_keys

  @typedoc """
  `options` go to the model. `text` are those of `Chatterbex.Text`, checked, for pieces of several sentences; `nil`
  if there is no text.
  `timeout` is in milliseconds. `resume` says whether a stream continues in another process: see `Chatterbex.Options`.
  """
  @type t :: %__MODULE__{
          server: GenServer.server(),
          model: Model.t(),
          parallel: pos_integer,
          max_characters: pos_integer,
          timeout: timeout,
          deadline: DateTime.t() | nil,
          priority: :high | :normal | :low,
          resume: boolean,
          options: map,
          text: map | nil
        }

  @doc """
  Asks the server what it is, and plans a request that says `:text`, or `:audio` again. `options` are checked by
  `Chatterbex.Options`; `:text` is for servers for tests, which record it.
  """
  @spec new(GenServer.server(), map, :text | :audio) :: {:ok, t} | {:error, Error.t()}
  def new(server, options, source \\ :text) do
    with {:ok, left} <- left(options.deadline),
         timeout = min(options.timeout || @about_timeout, left),
         {:ok, about} <- Client.about(server, timeout),
         :ok <- says(source, about.model),
         :ok <- Options.supported(options, about.model),
         {:ok, language} <- language(options[:language], about),
         {:ok, voice} <- Voice.resolve(options.voice, about),
         {:ok, text} <- text(source, options, language, about.model) do
      {:ok,
       %__MODULE__{
         server: server,
         model: about.model,
         parallel: about.parallel,
         max_characters: about.max_characters,
         timeout: options.timeout || about.timeout,
         deadline: options.deadline,
         priority: options.priority,
         resume: options[:resume] || false,
         options:
           options |> model_options(language, voice, about.model) |> put("test", asked(options, about)),
         text: text
       }}
    end
  end

  @doc """
  The milliseconds that are left until a deadline, `:infinity` where they are more than a timer takes; an error where it
  has passed.
  """
  @spec left(DateTime.t() | nil) :: {:ok, timeout} | {:error, Error.t()}
  def left(nil), do: {:ok, :infinity}

  def left(deadline) do
    case DateTime.diff(deadline, DateTime.utc_now(), :millisecond) do
      left when left > @longest -> {:ok, :infinity}
      left when left > 0 -> {:ok, left}
      _passed -> {:error, passed(deadline)}
    end
  end

  defp passed(deadline) do
    Error.new(:timeout, "the deadline #{deadline} has passed. Give a later :deadline.", %{deadline: deadline})
  end

  @doc """
  The time that a request has left, in milliseconds; with the deadline, if that comes first.
  """
  @spec limit(t) :: {:ok, %{timeout: timeout, deadline: DateTime.t() | nil}} | {:error, Error.t()}
  def limit(plan) do
    case left(plan.deadline) do
      {:ok, left} when left < plan.timeout -> {:ok, %{timeout: left, deadline: plan.deadline}}
      {:ok, _later} -> {:ok, %{timeout: plan.timeout, deadline: nil}}
      {:error, error} -> {:error, error}
    end
  end

  @doc """
  Counts the time since `started`, in monotonic milliseconds, as time of the request.
  """
  @spec spend(t, integer) :: {:ok, t} | {:error, Error.t()}
  def spend(%__MODULE__{timeout: :infinity} = plan, _started), do: {:ok, plan}

  def spend(plan, started) do
    spent = System.monotonic_time(:millisecond) - started

    if spent < plan.timeout do
      {:ok, %{plan | timeout: plan.timeout - spent}}
    else
      {:error,
       Error.new(
         :timeout,
         "reading the recording took #{spent} ms, and :timeout allows #{plan.timeout} ms for all. Raise :timeout.",
         %{waited_ms: spent}
       )}
    end
  end

  defp language(nil, %{language_pack: nil, model: %Model{languages: [_one, _more | _] = languages} = model}) do
    {:error,
     Error.new(
       :unknown_language,
       "the model #{inspect(model.name)} speaks #{length(languages)} languages: " <>
         "choose one, as in language: \"fr\". They are #{Enum.join(languages, ", ")}.",
       %{languages: languages}
     )}
  end

  defp language(nil, %{language_pack: pack}) when is_binary(pack), do: {:ok, Options.language_code(pack)}
  defp language(nil, %{model: %Model{languages: [language | _]}}), do: {:ok, language}
  defp language(nil, _about), do: {:ok, nil}
  defp language(language, _about), do: {:ok, Options.language_code(language)}

  defp says(:text, %Model{speaks: false, name: name}) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(name)} does not speak text: it converts speech to another voice, see Chatterbex.convert/2. " <>
         "Use a server with another model.",
       %{model: name}
     )}
  end

  defp says(:audio, %Model{speaks: true, name: name}) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(name)} speaks text, and does not convert speech. Start a server that does: " <>
         "children = [{Chatterbex, name: MyApp.Conversion, model: :conversion}], and give server: MyApp.Conversion.",
       %{model: name}
     )}
  end

  defp says(_source, _model), do: :ok

  defp text(:audio, _options, _language, _model), do: {:ok, nil}

  defp text(:text, options, language, model) do
    language = if language in Text.languages(), do: language, else: "en"

    Text.SplitOptions.validate(:chunks,
      language: language,
      max: model.chunk_characters,
      sentence_pause: options.sentence_pause,
      paragraph_pause: options.paragraph_pause,
      sounds: model.sounds,
      unknown_sounds: options.unknown_sounds
    )
  end

  defp model_options(options, language, voice, model) do
    specific =
      for {name, spec} <- Schema.fetch(:stream), spec[:specific], not is_nil(options[name]), into: %{} do
        {Atom.to_string(name), options[name]}
      end

    specific
    |> Map.put("seed", options.seed || :rand.uniform(0x100000000) - 1)
    |> put("voice", voice)
    |> put("language", if(length(model.languages) != 1, do: language))
  end

  # Servers for tests record requests and their callers. They run the same version as this node, or an older one.
  defp asked(options, %{testing: true}), do: Test.Engine.asked(options)
  defp asked(_options, _about), do: nil

  defp put(options, _name, nil), do: options
  defp put(options, name, value), do: Map.put(options, name, value)
end
