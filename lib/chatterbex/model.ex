defmodule Chatterbex.Model do
  @moduledoc """
  The models that a server can run. `Chatterbex.models/0` lists them.

  ## A model of your own

  A model is a Python class, a subclass of `chatterbex.model.Model`. Name it in the configuration, and you can
  use it like any other:

      config :chatterbex,
        models: [my_model: [python: "my_package.my_model:MyModel", path: "priv/python"]]

      {Chatterbex, name: MyApp.Speech, model: :my_model, model_options: %{size: "small"}}
  """

  alias Chatterbex.{Configuration, Error}

  @enforce_keys [:name, :description]
  defstruct [
    :name,
    :description,
    :license,
    :python,
    :path,
    :voice_family,
    voice_seconds: 0.0,
    profile: "hibari",
    speaks: true,
    languages: [],
    scripts: :any,
    options: [],
    sounds: [],
    voices: [],
    chunk_characters: 280,
    sample_rate: 24_000,
    devices: [:cpu]
  ]

  @typedoc """
  - `languages`: ISO 639-1 codes
  - `options`: the generation options that it accepts, in addition to those that every model accepts
  - `voices`: names of the voices that come with it; the first one is the default
  - `voice_family`: the family of voices that it can use as audio or as a `Chatterbex.Voice`; `nil` if it only has its own
    voices
  - `voice_seconds`: the recording of a voice must be longer than this
  - `sounds`: the tags that it knows, without brackets, as in `["laugh", "whispering"]`: noises, and styles for the words that
    follow (`Chatterbex.Text.sounds/0`)
  - `scripts`: `:any`, or the scripts that it can read, as in `[:latin]`
  - `chunk_characters`: the most text that it gets at a time; longer text is cut (`Chatterbex.Text.chunks/2`)
  - `speaks`: whether it speaks text; the model of `Chatterbex.convert/2` does not
  - `profile`: the profile that `mix chatterbex.setup` must have installed
  - `sample_rate`: samples per second of its audio
  - `devices`: where it can run
  - `python`, `path`: for models of your own, the class (`"module:Class"`) and the folder it is imported from
  """
  @type t :: %__MODULE__{
          name: atom,
          description: String.t(),
          license: String.t() | nil,
          python: String.t() | nil,
          path: Path.t() | nil,
          voice_family: String.t() | nil,
          voice_seconds: float,
          profile: String.t(),
          speaks: boolean,
          languages: [String.t()],
          scripts: :any | [atom],
          options: [atom],
          sounds: [String.t()],
          voices: [String.t()],
          chunk_characters: pos_integer,
          sample_rate: pos_integer,
          devices: [atom]
        }

  @doc false
  @spec all() :: [t]
  def all, do: built_in() ++ configured()

  @doc """
  Finds a model by its name, an atom or a string.

  ## Examples

      iex> {:ok, model} = Chatterbex.Model.fetch("hibari")
      iex> model.languages
      ["en"]

      iex> {:error, error} = Chatterbex.Model.fetch(:hibary)
      iex> error.message
      "there is no model :hibary. Did you mean :hibari? Chatterbex.models/0 lists all models."
  """
  @spec fetch(atom | String.t()) :: {:ok, t} | {:error, Error.t()}
  def fetch(name) when is_atom(name) or is_binary(name) do
    case Enum.find(all(), &(Atom.to_string(&1.name) == to_string(name))) do
      nil -> {:error, unknown(name)}
      model -> {:ok, model}
    end
  end

  def fetch(name), do: {:error, unknown(name)}

  defp unknown(name) do
    names = Enum.map(all(), & &1.name)
    hint = Chatterbex.Options.did_you_mean(name, names)

    Error.new(
      :unknown_model,
      "there is no model #{Chatterbex.Options.Schema.show(name)}.#{hint} Chatterbex.models/0 lists all models.",
      %{model: name, models: names}
    )
  end

  # The options of all models that sample speech tokens one by one.
  @tokens [:temperature, :top_p, :repetition_penalty, :max_tokens, :retries]
  # The options of all models that turn speech tokens into sound.
  @sound [
    :reference_seconds,
    :flow_steps,
    :first_chunk_steps,
    :chunk_tokens,
    :chunk_growth,
    :chunk_most
  ]

  @sounds Chatterbex.Text.Markup.sounds()

  @languages ~w(ar da de el en es fi fr he hi it ja ko ms nl no pl pt ru sv sw tr zh)

  defp built_in do
    [
      %__MODULE__{
        name: :hibari,
        description: "the built-in English voice: small, fast on any CPU, and it comes with the setup",
        license: "Apache-2.0",
        languages: ["en"],
        scripts: [:latin],
        options: [:speed],
        voices: ["heart"]
      },
      chatterbox(:turbo,
        description:
          "Chatterbox Turbo: English, fast, with sounds such as [laugh] and styles such as [whispering]",
        languages: ["en"],
        options: [:top_k, :norm_loudness | @tokens],
        sounds: @sounds,
        voice_family: "turbo",
        voice_seconds: 5.0
      ),
      chatterbox(:nano,
        description: "Chatterbox Nano: like Turbo, with a smaller network",
        languages: ["en"],
        options: [:top_k, :norm_loudness | @tokens],
        sounds: @sounds,
        voice_family: "turbo",
        voice_seconds: 5.0
      ),
      chatterbox(:english,
        description: "Chatterbox: English, with exaggeration and guidance",
        languages: ["en"],
        options: [:min_p, :cfg_weight, :exaggeration | @tokens],
        voice_family: "original",
        voice_seconds: 1.0
      ),
      chatterbox(:multilingual,
        description: "Chatterbox Multilingual: #{length(@languages)} languages",
        languages: @languages,
        options: [:min_p, :cfg_weight, :exaggeration | @tokens],
        voice_family: "original",
        voice_seconds: 1.0
      ),
      chatterbox(:conversion,
        description: "Chatterbox's voice conversion: speech in, the same speech in another voice out",
        speaks: false,
        voice_family: "original",
        voice_seconds: 1.0
      )
    ]
  end

  defp chatterbox(name, fields) do
    fields = Keyword.update(fields, :options, @sound, &(&1 ++ @sound))

    struct!(
      __MODULE__,
      [name: name, license: "MIT", profile: "torch", devices: [:cuda, :mps, :cpu]] ++ fields
    )
  end

  defp configured do
    for {name, spec} <- Configuration.get(:models, []) do
      %__MODULE__{
        name: name,
        description: Keyword.get(spec, :description, "configured by the application: #{spec[:python]}"),
        python: Keyword.fetch!(spec, :python),
        path: Keyword.get(spec, :path),
        options: Keyword.get(spec, :options, []),
        voices: Keyword.get(spec, :voices, []),
        voice_family: Keyword.get(spec, :voice_family),
        profile: Keyword.get(spec, :profile, "hibari"),
        voice_seconds: Keyword.get(spec, :voice_seconds, 0.0),
        languages: Keyword.get(spec, :languages, []),
        sounds: Keyword.get(spec, :sounds, []),
        chunk_characters: Keyword.get(spec, :chunk_characters, 280),
        sample_rate: Keyword.get(spec, :sample_rate, 24_000)
      }
    end
  end
end
