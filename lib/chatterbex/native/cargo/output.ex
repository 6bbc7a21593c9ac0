defmodule Chatterbex.Native.Cargo.Output do
  @moduledoc false
  # Shows the output of a command as it arrives, and keeps it.

  defstruct [:show, said: [], cut: ""]

  @type t :: %__MODULE__{show: (String.t() -> :ok), said: iodata, cut: binary}

  # A character may be cut in two between one piece and the next.
  @spec add(t, binary) :: t
  def add(output, piece) do
    {whole, cut} =
      case :unicode.characters_to_binary(output.cut <> piece) do
        {:incomplete, whole, cut} -> {whole, cut}
        {:error, whole, _} -> {whole, ""}
        whole -> {whole, ""}
      end

    output.show.(whole)
    %{output | said: [output.said, whole], cut: cut}
  end

  defimpl Collectable do
    def into(output) do
      collect = fn
        output, {:cont, piece} -> @for.add(output, piece)
        output, :done -> IO.iodata_to_binary(output.said)
        _output, :halt -> :ok
      end

      {output, collect}
    end
  end
end
