defmodule Chatterbex.ModelFiles do
  @moduledoc false
  alias Chatterbex.Error

  def locate(name, _opts),
    do: {:error, Error.new(:model_files_missing, "the files of #{name} are not on this machine")}

  def download(name, opts), do: locate(name, opts)
end
