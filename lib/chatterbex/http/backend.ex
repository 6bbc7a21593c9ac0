defmodule Chatterbex.HTTP.Backend do
  @moduledoc false
  # The only part of the HTTP interface that calls the rest of the library and its servers.

  alias Chatterbex.{Client, DefaultServer, Error, Model, Voice}
  alias Chatterbex.Voice.Source

  # A server answers these at once, also while it speaks or loads.
  @timeout 5_000

  @doc """
  The model of a server; `nil` is the default server, which this starts.
  """
  @spec model(Chatterbex.server() | nil) :: {:ok, Model.t()} | {:error, Error.t()}
  def model(server) do
    with {:ok, server} <- DefaultServer.resolve(server),
         {:ok, about} <- Client.about(server, @timeout),
         do: {:ok, about.model}
  end

  @doc """
  The names of the voices that a server has.
  """
  @spec voices(Chatterbex.server() | nil) :: {:ok, [String.t()]} | {:error, Error.t()}
  def voices(server) do
    with {:ok, server} <- DefaultServer.resolve(server),
         {:ok, entries} <- Voice.list(server: server),
         do: {:ok, Enum.map(entries, & &1.name)}
  end

  @doc """
  Makes a voice from the bytes of a recording, and saves it in the server's folder.
  """
  @spec add_voice(Chatterbex.server() | nil, binary, String.t(), String.t(), timeout) ::
          :ok | {:error, Error.t()}
  def add_voice(server, bytes, name, consent, timeout) do
    with {:ok, server} <- DefaultServer.resolve(server),
         {:ok, recording} <- Source.decode(bytes),
         {:ok, voice} <-
           Voice.clone(recording, server: server, name: name, note: consent, timeout: timeout),
         do: Voice.keep(voice, name, server: server)
  end

  @doc """
  The state of a server: see `Chatterbex.info/1`.
  """
  @spec info(Chatterbex.server() | nil) :: {:ok, map} | {:error, Error.t()}
  def info(server), do: Chatterbex.info(server: server)

  @doc """
  The speech as a lazy Enumerable of audio.
  """
  @spec stream(Chatterbex.server() | nil, String.t(), keyword) :: {:ok, Enumerable.t()} | {:error, Error.t()}
  def stream(server, text, options) do
    {:ok, Chatterbex.stream(text, [server: server] ++ options)}
  rescue
    error in Error -> {:error, error}
  end
end
