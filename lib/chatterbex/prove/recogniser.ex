defmodule Chatterbex.Prove.Recogniser do
  @moduledoc false
  # pocketsphinx, which recognises English speech, in a separate environment next to that of the models.

  alias Chatterbex.{Audio, Error, Files.Replacement, JSON, Python}
  alias Chatterbex.Setup.{HostMachine, PackageProfile, Subprocess, Uv}

  @lock "recogniser.txt"
  # Written last: if it exists, the environment is complete. It holds the checksum of the lock.
  @manifest "recogniser.sha256"

  @rate 16_000
  @install_timeout :timer.minutes(15)
  @hear_timeout :timer.minutes(15)

  @doc """
  The Python of the environment in `home`; `:missing` if there is none, or only one of another version.
  """
  @spec find(Path.t()) :: {:ok, Path.t()} | :missing
  def find(home) do
    program = Python.program(folder(home))

    if HostMachine.executable?(program) and
         File.read(Path.join(folder(home), @manifest)) == {:ok, checksum()},
       do: {:ok, program},
       else: :missing
  end

  @doc """
  Makes the environment in `home`, with the Python that `mix chatterbex.setup` found.
  """
  @spec install(Path.t()) :: {:ok, Path.t()} | {:error, Error.t()}
  def install(home) do
    folder = folder(home)

    with {:ok, python} <- Python.find(home: home),
         {:ok, _removed} <- File.rm_rf(folder),
         {:ok, uv} <- environment(python.manifest["python"]["base_executable"], folder, home),
         {:ok, _output} <- packages(uv, Python.program(folder)),
         :ok <- File.write(Path.join(folder, @manifest), checksum()) do
      {:ok, Python.program(folder)}
    else
      {:error, %Error{} = error} -> {:error, error}
      {:error, %{tool: tool} = failure} -> {:error, failed("#{tool} failed", failure)}
      {:error, posix} -> {:error, failed("#{folder} cannot be written: #{:file.format_error(posix)}.")}
      {:error, posix, path} -> {:error, failed("#{path} cannot be removed: #{:file.format_error(posix)}.")}
    end
  end

  @doc """
  What was heard of each audio, in their order.
  """
  @spec hear(Path.t(), [Audio.t()]) :: {:ok, [String.t()]} | {:error, Error.t()}
  def hear(program, audios) do
    folder = Replacement.unique(Path.join(System.tmp_dir!(), "chatterbex-prove"))

    with :ok <- made(folder) do
      try do
        with {:ok, files} <- write(audios, folder), do: recognise(program, files)
      after
        File.rm_rf(folder)
      end
    end
  end

  defp folder(home), do: Path.join(home, "recogniser")

  defp checksum do
    lock = @lock |> PackageProfile.lock_file() |> File.read!()
    :sha256 |> :crypto.hash(lock) |> Base.encode16(case: :lower)
  end

  defp environment(base, folder, home) do
    with {:ok, uv} <- uv(base, home), {:ok, _output} <- Uv.venv(uv, base, folder), do: {:ok, uv}
  end

  defp uv(base, home) do
    case Uv.find(HostMachine.this(), home) do
      nil -> Uv.fetch(base, home)
      uv -> {:ok, uv}
    end
  end

  defp packages(uv, program) do
    options = [timeout: @install_timeout, pip_files: HostMachine.this().pip_files]
    Uv.install(uv, program, [PackageProfile.lock_file(@lock)], options)
  end

  defp made(folder) do
    with {:error, posix} <- File.mkdir_p(folder),
         do: {:error, Error.new(:file_error, "cannot make #{folder}: #{:file.format_error(posix)}.")}
  end

  defp write(audios, folder) do
    audios
    |> Enum.with_index()
    |> Enum.reduce_while({:ok, []}, fn {audio, index}, {:ok, files} ->
      path = Path.join(folder, "#{index}.wav")

      with {:ok, audio} <- Audio.mono(audio),
           {:ok, audio} <- Audio.resample(audio, @rate),
           :ok <- Audio.write(audio, path) do
        {:cont, {:ok, [path | files]}}
      else
        {:error, error} -> {:halt, {:error, error}}
      end
    end)
    |> then(&with {:ok, files} <- &1, do: {:ok, Enum.reverse(files)})
  end

  defp recognise(program, files) do
    arguments = ["-I", PackageProfile.script("recognise.py") | files]

    with {:ok, output} <- Subprocess.run(program, arguments, timeout: @hear_timeout),
         answer = output |> Subprocess.last_lines(1) |> Enum.join(),
         {:ok, heard} when length(heard) == length(files) <- JSON.decode(answer) do
      {:ok, heard}
    else
      {:error, %{why: _why} = failure} -> {:error, failed("the recogniser failed", failure)}
      _no_answer -> {:error, failed("the recogniser gave no answer.")}
    end
  end

  defp failed(what, failure) do
    said = failure.output |> Subprocess.last_lines(5) |> Enum.join("\n")
    failed("#{what} (#{inspect(failure.why)}).#{if said == "", do: "", else: " It said:\n" <> said}")
  end

  defp failed(what) do
    Error.new(
      :not_set_up,
      "#{what}\nRun again with --install-recogniser, or without it to leave the words out."
    )
  end
end
