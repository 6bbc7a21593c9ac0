defmodule Chatterbex.Voice do
  @moduledoc """
  A voice to speak in.

  The Chatterbox models speak in the voice of a recording. In `Chatterbex.generate/2` and everywhere else, `voice:` accepts

    * a string, which is always a name, as in `"ann"`: one of the model's own voices, or else one in the folder of voices
    * `{:file, path}`, as in `{:file, "voices/ann.wav"}`: a recording (WAV, FLAC, MP3 or OGG) or a saved voice
      (`ann.voice`). The file is read once, and it and the voice that the model makes from it are cached until the file
      changes (`:max_voices` of the server)
    * a `Chatterbex.Audio` with the recording
    * a `Chatterbex.Voice`: a voice that a model has already made from a recording. It takes no more time to make, and you
      no longer need the recording

  A name never opens a file outside the folder of voices, so you can pass on a name that somebody typed into a form.

      {:ok, voice} = Chatterbex.Voice.clone("ann.wav", server: MyApp.Speech, name: "Ann", note: "agreed on 3 May")
      :ok = Chatterbex.Voice.save(voice, "priv/voices/ann.voice")
      {:ok, audio} = Chatterbex.generate(MyApp.Speech, "Hello!", voice: voice)

  ## Recordings

  Record one person who speaks clearly, without music, noise or echo. 10 to 15 seconds is best. `:turbo` and `:nano` need
  more than 5 seconds, the other models more than 1 second. The limits are 300 seconds and 64 MB. Several channels are
  averaged.

  `:turbo` and `:nano` normalise a recording to -27 LUFS before they make a voice from it, so that a quiet recording and
  a loud one give the same voice. With `norm_loudness: false`, in a request or in `clone/2`, they keep its loudness. The
  other models never change the loudness.

  ## A folder of voices

      config :chatterbex, voices: "priv/voices"

  or set `voices:` for one server. Each file in the folder is a voice. Its name is the file name without the extension:
  `ann.voice` or `ann.wav` is `voice: "ann"`. If both exist, the models that the saved voice was made for use it, and all
  others use the recording. You can add, replace and remove files at any time. A server on another node uses the folder on
  its own node. In a release, give the folder as `{:my_app, "priv/voices"}`.

  ## Families

  A saved voice fits the models of one family. The family `"turbo"` is `:turbo` and `:nano`; `"original"` is `:english`,
  `:multilingual` and `:conversion`. A model of another family refuses it.

  ## Who may be cloned

  Ask the person, and keep their answer: `note:` is stored in the voice. All speech of the Chatterbox models carries an
  inaudible watermark, which `Chatterbex.Audio.watermarked?/1` finds.
  """

  alias Chatterbex.{Audio, Client, DefaultServer, Error, Files, Model, Options, Telemetry, Test}
  alias Chatterbex.Voice.{Folder, Recording, Saved, Source}

  @enforce_keys [:data, :family]
  defstruct [:data, :family, :name, metadata: %{}]

  @typedoc """
  - `data`: the voice as the bytes of a safetensors file
  - `family`: the family of models that can use it, `"turbo"` or `"original"`
  - `metadata`: `:note`; the `:model` that made it; for the recording `:sample_hash` (SHA-256 of its samples), `:seconds`,
    `:sample_rate`, `:peak` (the largest sample), `:loudness` (LUFS, or `nil`), `:clipped` and `:quiet` (shares of the
    samples at full scale and below 1 % of it); and `:warnings`, a list of things to improve in the recording
  """
  @type t :: %__MODULE__{data: binary, family: String.t(), name: String.t() | nil, metadata: map}

  @typedoc """
  A voice that requests can name: its kind, its file and, for a saved voice, its family.
  """
  @type entry :: %{
          name: String.t(),
          kind: :model | :saved | :recording,
          path: Path.t() | nil,
          family: String.t() | nil
        }

  @doc """
  Makes a voice from a recording, with the model of a server.

  `source` is the path of a recording or a `Chatterbex.Audio`; see the module documentation for good recordings. The model
  needs a second or a few to make a voice, and does not speak meanwhile.

  `voice.metadata.warnings` lists what you could improve in the recording: its length, level, clipping, pauses or sample
  rate. It is an empty list if the recording is good.

  ## Options

  #{Chatterbex.Options.Schema.docs(:clone)}

  ## Examples

      {:ok, voice} = Chatterbex.Voice.clone("ann.wav", server: MyApp.Speech, name: "Ann")
      voice.metadata.warnings
      ["it is 6.4 s long: with 10 to 15 s the voice is more like the speaker's"]

      iex> {:error, error} = Chatterbex.Voice.clone("ann.wav", nmae: "Ann")
      iex> error.message
      "unknown option :nmae. Did you mean :name? The options are :server, :name, :note, :norm_loudness, :timeout."
  """
  @spec clone(Path.t() | Audio.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def clone(source, options \\ []) do
    Telemetry.span([:chatterbex, :clone], %{}, DefaultServer.asked(options), fn ->
      with {:ok, options} <- Options.validate(:clone, options),
           {:ok, server} <- DefaultServer.resolve(options.server),
           {:ok, about} <- Client.about(server, options.timeout),
           :ok <- clones(about.model),
           :ok <- Options.supported(options, about.model),
           {:ok, recording} <- recording(source),
           :ok <- Recording.check(recording, about.model),
           {:ok, answer} <-
             Client.call_model(server, "clone", command(recording, options, about), options.timeout),
           {:ok, voice} <- voice(answer, recording, options) do
        {:ok, voice, %{seconds: recording.seconds}, %{model: about.model.name}}
      end
    end)
  end

  defp voice(answer, recording, options) do
    marks =
      Map.merge(answer["quality"], %{
        "name" => options.name,
        "note" => options.note,
        "sample_rate" => recording.sample_rate
      })

    case Saved.new(answer["voice"], marks) do
      {:ok, saved} ->
        {:ok, of_saved(saved)}

      {:error, why} ->
        {:error, Error.new(:generation_failed, "the voice that the model made from the recording #{why}")}
    end
  end

  defp of_saved(saved), do: struct!(__MODULE__, Map.from_struct(saved))

  @doc """
  The same as `clone/2`, but returns the voice or raises `Chatterbex.Error`.

  ## Examples

      "ann.wav" |> Chatterbex.Voice.clone!(server: MyApp.Speech) |> Chatterbex.Voice.save("priv/voices/ann.voice")

      iex> Chatterbex.Voice.clone!("ann.wav", server: MyApp.NoSuchServer)
      ** (Chatterbex.Error) no server runs as MyApp.NoSuchServer. Start it under your supervisor: children = [{Chatterbex, name: MyApp.NoSuchServer}]
  """
  @spec clone!(Path.t() | Audio.t(), keyword) :: t
  def clone!(source, options \\ []), do: Error.unwrap!(clone(source, options))

  defp command(recording, %{norm_loudness: norm_loudness} = options, about) do
    command = Recording.command(recording)
    command = if is_nil(norm_loudness), do: command, else: Map.put(command, "norm_loudness", norm_loudness)
    if about[:testing], do: Map.put(command, "test", Test.Engine.asked(options)), else: command
  end

  defp clones(%Model{voice_family: nil, name: name}) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(name)} only has its own voices. Make the voice with a server of a Chatterbox model, " <>
         "as in {Chatterbex, name: MyApp.Speech, model: :turbo}.",
       %{model: name}
     )}
  end

  defp clones(_model), do: :ok

  defp recording(%Audio{} = audio), do: of_audio(audio)
  defp recording(%Recording{} = recording), do: {:ok, recording}

  defp recording(path) when is_binary(path) do
    case Source.read(path) do
      {:ok, %Recording{} = recording} ->
        {:ok, recording}

      {:ok, %Saved{}} ->
        {:error, Error.new(:voice_unreadable, "#{path} is already a voice, not a recording: use it as it is")}

      {:error, error} ->
        {:error, error}
    end
  end

  defp recording(other) do
    {:error,
     Error.new(
       :invalid_option,
       "a voice is made from a recording: give its path or a Chatterbex.Audio, not #{Options.Schema.show(other)}"
     )}
  end

  defp of_audio(audio) do
    case Recording.new(audio) do
      {:ok, recording} -> {:ok, recording}
      {:error, %Error{reason: :native_not_loaded} = error} -> {:error, error}
      {:error, error} -> {:error, %{error | reason: :voice_unreadable}}
    end
  end

  @doc """
  Writes a voice to a file. By convention its extension is `.voice`. It is a safetensors file: numbers, and no code.

  The file appears whole or not at all.

  ## Examples

      :ok = Chatterbex.Voice.save(voice, "priv/voices/ann.voice")

      iex> voice = %Chatterbex.Voice{data: "", family: "turbo"}
      iex> {:error, error} = Chatterbex.Voice.save(voice, "/no/such/folder/ann.voice")
      iex> error.reason
      :file_error
  """
  @spec save(t, Path.t()) :: :ok | {:error, Error.t()}
  def save(%__MODULE__{data: data}, path) when is_binary(data), do: Files.write(path, data)

  # Adds a voice to the folder of the server, on the server's node, under a name that is still free there.
  @doc false
  @spec keep(t, String.t(), keyword) :: :ok | {:error, Error.t()}
  def keep(%__MODULE__{data: data}, name, server: server) do
    with {:ok, about} <- Client.about(server, 60_000) do
      case about do
        %{voices: nil} ->
          {:error,
           Error.new(:file_error, "voices cannot be added without a folder for them: #{configure()}", %{
             posix: :enoent
           })}

        about ->
          there(about, Folder, :add, [about.voices, name, data])
      end
    end
  end

  @doc """
  Reads a voice that `save/2` wrote.

  A file that is damaged, truncated, in another format or from another version is refused with the reason
  `:voice_unreadable`. The message says which of these it is.

  ## Examples

      {:ok, voice} = Chatterbex.Voice.load("priv/voices/ann.voice")

      iex> {:error, error} = Chatterbex.Voice.load("/no/such/ann.voice")
      iex> error.message
      "the voice /no/such/ann.voice cannot be read: no such file or directory (enoent)"
  """
  @spec load(Path.t()) :: {:ok, t} | {:error, Error.t()}
  def load(path), do: with({:ok, saved} <- Source.saved(path), do: {:ok, of_saved(saved)})

  @doc """
  The same as `load/1`, but returns the voice or raises `Chatterbex.Error`.

  ## Examples

      Chatterbex.generate("Hello!", voice: Chatterbex.Voice.load!("priv/voices/ann.voice"))

      iex> Chatterbex.Voice.load!("/no/such/ann.voice")
      ** (Chatterbex.Error) the voice /no/such/ann.voice cannot be read: no such file or directory (enoent)
  """
  @spec load!(Path.t()) :: t
  def load!(path), do: Error.unwrap!(load(path))

  @doc """
  Lists the voices that requests can name: those of a server, from its model and its folder, or those of a folder.

  ## Options

  #{Chatterbex.Options.Schema.docs(:voices)}

  ## Examples

      {:ok, voices} = Chatterbex.Voice.list(server: MyApp.Speech)
      Enum.map(voices, & &1.name)
      ["ann", "bob"]

      iex> {:error, error} = Chatterbex.Voice.list(folder: "/no/such/folder")
      iex> error.reason
      :file_error
  """
  @spec list(keyword) :: {:ok, [entry]} | {:error, Error.t()}
  def list(options \\ []) do
    case Options.validate(:voices, options) do
      {:ok, %{folder: nil, server: server}} -> of_server(server)
      {:ok, %{folder: folder, server: nil}} -> Source.entries(folder)
      {:ok, options} -> {:error, server_and_folder(options)}
      {:error, error} -> {:error, error}
    end
  end

  defp server_and_folder(options) do
    Error.new(
      :invalid_option,
      "a server (#{inspect(options.server)}) and a folder (#{options.folder}) were given; give one"
    )
  end

  defp of_server(server) do
    with {:ok, server} <- DefaultServer.resolve(server),
         {:ok, about} <- Client.about(server, 60_000),
         {:ok, entries} <- entries(about) do
      own = for name <- about.model.voices, do: %{name: name, kind: :model, path: nil, family: nil}
      {:ok, own ++ Enum.reject(entries, &(&1.name in about.model.voices))}
    end
  end

  defp entries(%{voices: nil}), do: {:ok, []}
  defp entries(%{model: %Model{voice_family: nil}}), do: {:ok, []}
  defp entries(about), do: there(about, Source, :entries, [about.voices])

  # The option `:voice` as the model needs it. `about` is the result of `Chatterbex.Client.about/2`.
  @doc false
  @spec resolve(term, map) :: {:ok, term} | {:error, Error.t()}
  def resolve(nil, _about), do: {:ok, nil}

  def resolve(name, about) when is_binary(name) do
    cond do
      name in about.model.voices -> {:ok, name}
      is_nil(about.model.voice_family) -> no_voice(name, about.model)
      true -> with {:ok, voice} <- find(name, about), do: for_model(voice, about.model)
    end
  end

  def resolve(voice, %{model: %Model{voice_family: nil} = model}), do: no_voice(voice, model)

  def resolve({:file, path}, about) do
    with {:ok, voice} <- Source.read(path), do: for_model(voice, about.model)
  end

  def resolve(%Audio{} = audio, about) do
    with {:ok, recording} <- of_audio(audio) do
      Recording.warn(recording, "the audio given as a voice")
      for_model(recording, about.model)
    end
  end

  def resolve(%__MODULE__{} = voice, about) do
    case Saved.parse(voice.data) do
      {:ok, saved} -> for_model(saved, about.model)
      {:error, why} -> {:error, Error.new(:voice_unreadable, "the voice cannot be used: it #{why}")}
    end
  end

  defp for_model(%Saved{family: family, data: data}, %Model{voice_family: family}),
    do: {:ok, %{"saved" => {:bytes, data}}}

  defp for_model(%Saved{} = voice, model) do
    {:error,
     Error.new(
       :not_supported,
       "the voice#{voice.name && " " <> inspect(voice.name)} was made for the models of the family #{voice.family}, " <>
         "and #{inspect(model.name)} is of the family #{model.voice_family}. Make it again with this model: " <>
         "Chatterbex.Voice.clone/2.",
       %{family: voice.family, needed: model.voice_family}
     )}
  end

  defp for_model(%Recording{} = recording, model) do
    with :ok <- Recording.check(recording, model), do: {:ok, Recording.command(recording)}
  end

  defp find(name, about), do: with(:unknown <- named(name, about), do: unknown(name, about))

  defp named(_name, %{voices: nil}), do: :unknown

  defp named(name, about) do
    if Folder.name?(name),
      do: there(about, Source, :named, [about.voices, name, about.model.voice_family]),
      else: :unknown
  end

  # The folder is on the node of the server.
  defp there(%{node: node}, module, function, arguments) when node == node(),
    do: apply(module, function, arguments)

  defp there(about, module, function, arguments) do
    :erpc.call(about.node, module, function, arguments, 60_000)
  catch
    kind, reason ->
      {:error,
       Error.new(
         :voice_unreadable,
         "the voices of the node #{about.node} cannot be read: #{Options.Schema.show({kind, reason})}"
       )}
  end

  defp unknown(name, about) do
    with {:ok, entries} <- entries(about) do
      names = about.model.voices ++ Enum.map(entries, & &1.name)

      {:error,
       Error.new(
         :invalid_option,
         "there is no voice #{Options.Schema.show(name)}.#{Options.did_you_mean(name, names)} #{known(names, about)} " <>
           "A string is a name; to use a file, give voice: {:file, \"ann.wav\"}.",
         %{voice: name, voices: names}
       )}
    end
  end

  defp known([], %{voices: nil}), do: "No folder of voices is configured: #{configure()}."
  defp known([], about), do: "The folder #{about.voices} has none."

  defp known(names, _about) do
    {shown, others} = Enum.split(names, 10)
    more = if others == [], do: "", else: " and #{length(others)} more"
    "There are #{Enum.map_join(shown, ", ", &inspect/1)}#{more}."
  end

  defp configure, do: ~s(config :chatterbex, voices: "priv/voices")

  defp no_voice(voice, model) do
    {:error,
     Error.new(
       :not_supported,
       "the model #{inspect(model.name)} has no voice #{Options.Schema.show(voice)}. " <>
         "Its voices: #{Enum.map_join(model.voices, ", ", &inspect/1)}.",
       %{voice: voice, voices: model.voices}
     )}
  end

  defimpl Inspect do
    def inspect(voice, _options) do
      parts = [voice.name && Kernel.inspect(voice.name), voice.family, seconds(voice.metadata)]
      "#Chatterbex.Voice<#{parts |> Enum.reject(&is_nil/1) |> Enum.join(", ")}>"
    end

    defp seconds(%{seconds: seconds}) when is_number(seconds),
      do: "#{:erlang.float_to_binary(seconds * 1.0, decimals: 1)} s"

    defp seconds(_metadata), do: nil
  end
end
