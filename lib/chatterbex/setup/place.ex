defmodule Chatterbex.Setup.Place do
  @moduledoc false
  # The folder of the environment: what was there before the build, and what comes back if it fails.

  alias Chatterbex.{Error, Python}
  alias Chatterbex.Setup.{Failure, Interpreter, Manifest, Request}

  @typedoc """
  What the build starts from: an existing environment or a new one, and the old manifest.
  """
  @type state :: %{reuse: boolean, manifest: Manifest.t() | nil}

  @doc """
  Decides what to do with an existing environment: work continues with it, or it is put aside until the new one is
  complete, or it is removed.
  """
  @spec prepare(Interpreter.t(), Request.t()) :: {:ok, state} | {:error, Error.t()}
  def prepare(interpreter, %Request{venv: venv} = request) do
    manifest = with {:ok, manifest} <- Manifest.read(venv), do: manifest, else: (_unreadable -> nil)

    cond do
      empty?(venv) ->
        {:ok, %{reuse: false, manifest: nil}}

      not Manifest.ours?(venv) ->
        {:error,
         Failure.error(
           "#{venv} exists and was not made by this setup, so it is left alone.",
           "remove it, or give another folder with --path.",
           request
         )}

      reusable?(interpreter, request) ->
        {:ok, %{reuse: true, manifest: manifest}}

      true ->
        with :ok <- clear(request), do: {:ok, %{reuse: false, manifest: manifest}}
    end
  end

  defp empty?(venv), do: File.ls(venv) in [{:error, :enoent}, {:ok, []}]

  defp reusable?(_interpreter, %{force: true}), do: false

  defp reusable?(interpreter, request) do
    case Interpreter.examine(Python.program(request.venv), request.machine) do
      {:ok, found} -> Interpreter.same?(found, interpreter)
      {:error, _broken} -> false
    end
  end

  # A working environment is kept until a better one works.
  defp clear(%{venv: venv} = request) do
    aside = aside(venv)
    works? = match?({:ok, _python}, Request.find(request)) and not Manifest.begun?(venv)

    cleared =
      if works? do
        with {:ok, _removed} <- File.rm_rf(aside), do: File.rename(venv, aside)
      else
        with {:ok, _removed} <- File.rm_rf(venv), do: :ok
      end

    case cleared do
      :ok -> :ok
      {:error, reason} -> {:error, Failure.unwritable(venv, reason, request)}
      {:error, reason, path} -> {:error, Failure.unwritable(path, reason, request)}
    end
  end

  @doc """
  Where the old environment is kept while a new one is built.
  """
  @spec aside(Path.t()) :: Path.t()
  def aside(venv), do: venv <> ".old"

  @doc """
  Ends the build: removes the old environment, or restores it if the new one failed.
  """
  @spec finish({:ok, result} | {:error, Error.t()}, Request.t()) :: {:ok, result} | {:error, Error.t()}
        when result: term
  def finish({:ok, python}, request) do
    _removed = File.rm_rf(aside(request.venv))
    {:ok, python}
  end

  def finish({:error, error}, request) do
    aside = aside(request.venv)

    if File.dir?(aside) do
      with {:ok, _removed} <- File.rm_rf(request.venv), :ok <- File.rename(aside, request.venv) do
        request.report.("The old environment is restored.")
      end
    end

    {:error, error}
  end

  @doc """
  Where an earlier setup may have left uv: in the environment, put aside with it, or apart from it.
  """
  @spec tool_folders(Path.t()) :: [Path.t()]
  def tool_folders(venv) do
    [Path.join(venv, "bin"), Path.join(aside(venv), "bin"), venv |> Path.dirname() |> Path.join("uv/bin")]
  end
end
