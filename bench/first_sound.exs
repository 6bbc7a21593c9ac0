Code.require_file("support.exs", __DIR__)

Bench.title("A fresh VM: from generate to the WAV file")

code = """
Logger.configure(level: :warning)
{:ok, _apps} = Application.ensure_all_started(:chatterbex)
started = System.monotonic_time(:microsecond)
{:ok, audio} = Chatterbex.generate("Hello, world!")
:ok = Chatterbex.Audio.write(audio, Path.join(System.tmp_dir!(), "chatterbex-bench.wav"))
IO.puts(System.monotonic_time(:microsecond) - started)
"""

paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

times =
  for _run <- 1..5 do
    {output, 0} = System.cmd("elixir", paths ++ ["-e", code])
    output |> String.trim() |> String.to_integer() |> Kernel./(1000)
  end

Bench.row("median of 5", Bench.ms(Bench.median(times)))
