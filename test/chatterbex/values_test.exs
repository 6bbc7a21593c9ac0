defmodule Chatterbex.ValuesTest do
  use ExUnit.Case, async: true

  doctest Chatterbex
  doctest Chatterbex.CommandLine
  doctest Chatterbex.Mailbox
  doctest Chatterbex.Error
  doctest Chatterbex.Device
  doctest Chatterbex.DownloadBar
  doctest Chatterbex.Model
  doctest Chatterbex.Setup.PackageProfile
  doctest Chatterbex.Telemetry
  doctest Chatterbex.Text

  test "an error from native code keeps its reason, or becomes :generation_failed" do
    payload = %{"reason" => "out_of_memory", "message" => "no room", "details" => %{"bytes" => 7}}
    assert %{reason: :out_of_memory, details: %{bytes: 7}} = Chatterbex.Error.from_native(payload)

    assert %{reason: :generation_failed} =
             Chatterbex.Error.from_native(%{payload | "reason" => "no such reason"})
  end

  test "the error's documentation lists every reason" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Chatterbex.Error)
    for reason <- Chatterbex.Error.reasons(), do: assert(doc =~ "| `:#{reason}` |")
  end

  test "the documentation of events lists every event" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Chatterbex.Telemetry)

    for event <- Chatterbex.Telemetry.events() do
      # The three events of a span are one line.
      named = if List.last(event) in [:start, :stop, :exception], do: Enum.drop(event, -1), else: event
      assert doc =~ "| `#{inspect(named)}` |"
    end
  end

  test "Elixir, Rust and Python know the same reasons" do
    reasons = Chatterbex.Error.reasons() |> Enum.map(&Atom.to_string/1) |> Enum.sort()

    for {file, pattern} <- [
          {"native/nif/src/error.rs", ~r/REASONS: &\[&str\] = &\[(.*?)\]/s},
          {"priv/python/chatterbex/errors.py", ~r/REASONS.*?[\[{(]\n(.*?)\n[\]})]/s}
        ] do
      [_all, list] = Regex.run(pattern, File.read!(Path.expand("../../#{file}", __DIR__)))
      assert ~r/"(\w+)"/ |> Regex.scan(list) |> Enum.map(&List.last/1) |> Enum.sort() == reasons, file
    end
  end
end
