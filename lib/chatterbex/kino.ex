# Livebook shows audio as a player with its waveform above.
if Code.ensure_loaded?(Kino.Render) do
  defimpl Kino.Render, for: Chatterbex.Audio do
    alias Chatterbex.Audio

    def to_livebook(audio) do
      with {:ok, wav} <- Audio.to_wav(audio),
           {:ok, svg} <- Audio.plot(audio, show: :waveform, width: 800, height: 160) do
        Kino.Render.to_livebook(
          Kino.Layout.grid([Kino.Image.new(svg, :svg), Kino.Audio.new(wav, :wav)], columns: 1)
        )
      else
        {:error, _error} -> audio |> Kino.Inspect.new() |> Kino.Render.to_livebook()
      end
    end
  end
end
