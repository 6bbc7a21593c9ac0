defmodule Chatterbex.HTTP.Voices do
  @moduledoc false
  # POST /v1/audio/voices: makes a voice from a recording, and saves it in the folder of the server.

  alias Chatterbex.{Error, Options}
  alias Chatterbex.HTTP.{Backend, Catalogue, ErrorResponse, Multipart, Request, Response}

  @fields ~w(name consent audio_sample type)

  # The form around the recording.
  @form 16_384

  @longest_name 60
  @longest_consent 4_000

  @doc """
  How large the body may be, in bytes.
  """
  @spec max_body(map) :: pos_integer
  def max_body(options), do: options.max_recording + @form

  @doc """
  Why a request may not add a voice, regardless of its body.
  """
  @spec refused(map, Request.t()) :: Response.t() | nil
  def refused(%{add_voices: false}, _request),
    do:
      forbidden(
        "this server does not accept new voices. Its operator can allow them with the option add_voices."
      )

  # A web page can send a form without this server's permission. It cannot send a key, which a page must not know.
  def refused(%{api_key: nil} = options, request) do
    origin = Request.header(request, "origin")

    if origin in [nil, options.cors] or options.cors == "*" or own?(origin, Request.header(request, "host")),
      do: nil,
      else: forbidden("web pages of other origins may not add voices: see the option cors")
  end

  def refused(_options, _request), do: nil

  defp own?(origin, host), do: host != nil and origin in ["http://" <> host, "https://" <> host]

  defp forbidden(message), do: Response.error(403, message)

  @doc """
  Returns when the voice has been saved.
  """
  @spec respond(map, Request.t()) :: Response.t()
  def respond(options, %Request{} = request) do
    with {:ok, fields} <- form(request),
         :ok <- known(fields),
         :ok <- type(fields["type"]),
         {:ok, name} <- name(fields["name"]),
         {:ok, consent} <- consent(fields["consent"]),
         {:ok, recording} <- recording(fields["audio_sample"], options.max_recording),
         {:ok, _model, server} <- Catalogue.queried(options, request.query),
         :ok <- alone(fn -> add(server, recording, name, consent, options.timeout) end) do
      Response.json(200, %{
        id: name,
        object: "audio.voice",
        created_at: System.os_time(:second),
        name: name,
        type: "audio_sample"
      })
    else
      {:error, %Error{} = error} -> failure(error)
      {:error, %Response{} = response} -> response
    end
  end

  # A small file may hold a recording that needs much memory, and a model makes one voice at a time.
  defp alone(work) do
    with :aborted <- :global.trans({__MODULE__, self()}, work, [node()], 0),
         do: {:error, ErrorResponse.busy("another voice is being made")}
  end

  defp add(server, recording, name, consent, timeout) do
    with :ok <- Catalogue.free(server, name),
         do: Backend.add_voice(server, recording, name, consent, timeout)
  end

  # A parser has read the form.
  defp form(%Request{body: %{} = fields} = request) do
    with {:ok, _boundary} <- boundary(request), do: {:ok, fields}
  end

  defp form(%Request{body: body} = request) do
    with {:ok, boundary} <- boundary(request),
         {:error, why} <- Multipart.parse(body, boundary),
         do: invalid(nil, "the form cannot be read: #{why}", "invalid_form")
  end

  defp boundary(request) do
    with :error <- request |> Request.header("content-type") |> Multipart.boundary() do
      {:error,
       Response.error(
         415,
         "the body must be a form with a file: send `Content-Type: multipart/form-data; boundary=...`"
       )}
    end
  end

  defp known(fields) do
    case Map.keys(fields) -- @fields do
      [] ->
        :ok

      [name | _others] ->
        invalid(
          name,
          "there is no field #{inspect(name)}.#{Options.did_you_mean(name, @fields)} " <>
            "The fields are #{Enum.join(@fields, ", ")}.",
          "unknown_parameter"
        )
    end
  end

  defp type(type) when type in [nil, "audio_sample"], do: :ok
  defp type(_other), do: invalid("type", "type must be audio_sample: voices are made of recordings here")

  defp name(name) when is_binary(name) do
    if named?(name),
      do: {:ok, String.normalize(name, :nfc)},
      else:
        invalid(
          "name",
          "name must be 1 to #{@longest_name} letters and digits; between them it may have spaces and any of . _ ' -"
        )
  end

  defp name(value), do: missing("name", value, "what the voice is called")

  # It becomes the name of a file.
  defp named?(name) do
    String.valid?(name) and byte_size(name) <= 3 * @longest_name and String.length(name) <= @longest_name and
      name =~ ~r/\A[\p{L}\p{N}](?:[\p{L}\p{M}\p{N} ._'’-]*[\p{L}\p{M}\p{N}])?\z/u
  end

  defp consent(consent) when is_binary(consent) do
    cond do
      String.trim(consent) == "" -> missing("consent", nil, "what the speaker agreed to")
      String.length(consent) <= @longest_consent -> {:ok, consent}
      true -> invalid("consent", "consent must be at most #{@longest_consent} characters long")
    end
  end

  defp consent(value), do: missing("consent", value, "what the speaker agreed to")

  defp recording({:file, bytes}, max) when byte_size(bytes) <= max, do: {:ok, bytes}

  defp recording({:file, _bytes}, max),
    do: {:error, Response.error(413, "audio_sample is larger than #{max} bytes", param: "audio_sample")}

  defp recording(nil, _max), do: missing("audio_sample", nil, "the recording, as a file")

  defp recording(_text, _max),
    do: invalid("audio_sample", "audio_sample must be a file, not a string", "invalid_type")

  defp missing(name, nil, what),
    do: invalid(name, "#{name} is missing: #{what}", "missing_required_parameter")

  defp missing(name, _other, _what), do: invalid(name, "#{name} must be a string", "invalid_type")

  # Another request has added it meanwhile.
  defp failure(%Error{details: %{name: _taken}}), do: Catalogue.taken()
  # Only the recording can be at fault: the other fields have been checked.
  defp failure(error), do: ErrorResponse.response(error, "audio_sample")

  defp invalid(param, message, code \\ "invalid_value"),
    do: {:error, Response.error(400, message, param: param, code: code)}
end
