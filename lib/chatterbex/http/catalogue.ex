defmodule Chatterbex.HTTP.Catalogue do
  @moduledoc false
  # The models and voices that requests can name.

  alias Chatterbex.Error
  alias Chatterbex.HTTP.{Backend, ErrorResponse, Response}
  alias Chatterbex.Options

  # The names that OpenAI's clients send if their users choose nothing.
  @openai_models ~w(tts-1 tts-1-hd gpt-4o-mini-tts)
  @openai_voices ~w(alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse)

  # The name of a model's default voice.
  @default "default"

  @shown 10

  @doc """
  The server for the name of a model; `nil` is the default one.
  """
  @spec server(map, String.t() | nil) :: {:ok, String.t(), Chatterbex.server() | nil} | {:error, Response.t()}
  def server(options, name) do
    with {:ok, [{default, server} | _others] = servers} <- servers(options) do
      case List.keyfind(servers, name || default, 0) do
        {name, server} -> {:ok, name, server}
        nil when name in @openai_models -> {:ok, default, server}
        nil -> {:error, no_model(name, Enum.map(servers, &elem(&1, 0)))}
      end
    end
  end

  # The first is the default.
  defp servers(%{models: models, server: nil}) when models != %{}, do: {:ok, Enum.sort(models)}

  defp servers(%{models: models, server: server}) do
    case Enum.find(models, fn {_name, named} -> named == server end) do
      {name, _server} when server != nil ->
        {:ok, [{name, server} | models |> Map.delete(name) |> Enum.sort()]}

      _unnamed ->
        with {:ok, model} <- model_of(server),
             do: {:ok, [{Atom.to_string(model.name), server} | Enum.sort(models)]}
    end
  end

  defp model_of(server) do
    with {:error, error} <- Backend.model(server), do: {:error, ErrorResponse.response(error)}
  end

  defp no_model(name, names) do
    Response.error(
      404,
      "there is no model #{Options.Schema.show(name)}. #{there_are(names)}",
      param: "model",
      code: "model_not_found"
    )
  end

  @doc """
  The voice for the name in a request, in the form that the engine needs.
  """
  @spec voice(Chatterbex.server() | nil, String.t() | nil) :: {:ok, String.t() | nil} | {:error, Response.t()}
  def voice(_server, nil), do: {:ok, nil}

  def voice(server, name) do
    with {:ok, names} <- names(server) do
      cond do
        name in names -> {:ok, name}
        name == @default or name in @openai_voices -> {:ok, nil}
        true -> {:error, no_voice(name, names)}
      end
    end
  end

  defp names(server) do
    with {:error, %Error{} = error} <- Backend.voices(server), do: {:error, ErrorResponse.response(error)}
  end

  defp no_voice(name, names) do
    Response.error(
      400,
      "there is no voice #{Options.Schema.show(name)}. #{there_are(names ++ [@default])}",
      param: "voice",
      code: "invalid_value"
    )
  end

  defp there_are(names) do
    {shown, others} = Enum.split(names, @shown)
    more = if others == [], do: "", else: " and #{length(others)} more"
    "There are #{Enum.map_join(shown, ", ", &inspect/1)}#{more}."
  end

  @spec models(map) :: Response.t()
  def models(options) do
    with {:ok, servers} <- servers(options) do
      Response.json(200, %{object: "list", data: Enum.map(servers, fn {name, _server} -> model(name) end)})
    else
      {:error, response} -> response
    end
  end

  @spec model(map, String.t()) :: Response.t()
  def model(options, name) do
    with {:ok, name} <- decoded(&URI.decode/1, name),
         {:ok, name, _server} <- server(options, name) do
      Response.json(200, model(name))
    else
      {:error, response} -> response
    end
  end

  defp decoded(decode, text) do
    {:ok, decode.(text)}
  rescue
    ArgumentError ->
      {:error, Response.error(400, "the address has a % that two hexadecimal digits must follow")}
  end

  defp model(name), do: %{id: name, object: "model", created: 0, owned_by: "chatterbex"}

  @spec audio_models(map) :: Response.t()
  def audio_models(options) do
    with {:ok, servers} <- servers(options) do
      Response.json(200, %{models: Enum.map(servers, fn {name, _server} -> %{id: name, name: name} end)})
    else
      {:error, response} -> response
    end
  end

  @spec voices(map, String.t()) :: Response.t()
  def voices(options, query) do
    with {:ok, _model, server} <- queried(options, query),
         {:ok, names} <- names(server) do
      voices = for name <- Enum.uniq(names ++ [@default]), do: %{id: name, name: name}
      Response.json(200, %{voices: voices})
    else
      {:error, response} -> response
    end
  end

  @doc """
  The server that the query of a URL names (`model=NAME`), as `server/2` returns it.
  """
  @spec queried(map, String.t()) :: {:ok, String.t(), Chatterbex.server() | nil} | {:error, Response.t()}
  def queried(options, query) do
    with {:ok, fields} <- decoded(&URI.decode_query/1, query), do: server(options, fields["model"])
  end

  @doc """
  Whether a voice of this name can be added.
  """
  @spec free(Chatterbex.server() | nil, String.t()) :: :ok | {:error, Response.t()}
  def free(server, name) do
    with {:ok, names} <- names(server) do
      if name in [@default | names], do: {:error, taken()}, else: :ok
    end
  end

  @spec taken() :: Response.t()
  def taken,
    do: Response.error(409, "there is already a voice with this name; choose another name", param: "name")

  @doc """
  All servers by name, for status and metrics.
  """
  @spec all(map) :: {:ok, [{String.t(), Chatterbex.server() | nil}]} | {:error, Response.t()}
  def all(options), do: servers(options)
end
