defmodule Chatterbex.Doctor.InstalledModels do
  @moduledoc false
  # The files of the models that have some.

  import Chatterbex.Doctor.CheckResult

  alias Chatterbex.{Error, Model, ModelFiles, Precision}

  def models(context) do
    {for(%Model{profile: "torch", python: nil} = model <- Model.all(), do: model(model.name, context)),
     context}
  end

  defp model(name, context) do
    case ModelFiles.locate(name, home: context.home) do
      {:ok, folder} -> complete(name, folder, context)
      {:error, error} -> incomplete(name, error)
    end
  end

  defp complete(name, folder, %{verify: false} = context),
    do: found(name, "all files are in #{folder}", folder, context)

  defp complete(name, folder, context) do
    case ModelFiles.verify(name, home: context.home) do
      {:ok, files} -> found(name, "#{length(files)} files are right, in #{folder}", folder, context)
      {:error, error} -> problem(name, :failed, error)
    end
  end

  defp found(name, message, folder, context) do
    verdict = Precision.newest(context.home, name, folder)
    precision = if verdict, do: "; precision: :auto has #{Precision.text(verdict)}", else: ""
    new(:model, "model #{name}", :ok, message <> precision, nil, %{folder: folder, precision: verdict})
  end

  # A damaged file is a failure, not an incomplete setup.
  defp incomplete(name, %Error{details: %{folder: folder, files: files}} = error) do
    damaged? = Enum.any?(files, &match?({:ok, _stat}, File.lstat(Path.join(folder, &1))))
    problem(name, if(damaged?, do: :failed, else: :not_set_up), error)
  end

  defp incomplete(name, error), do: problem(name, :not_set_up, error)

  defp problem(name, status, %Error{message: message, details: details}) do
    case String.split(message, " Run: ", parts: 2) do
      [message, command] -> new(:model, "model #{name}", status, message, command, details)
      [message] -> new(:model, "model #{name}", status, message)
    end
  end
end
