defmodule Chatterbex.FakeHome do
  @moduledoc """
  A home whose Python is a shell script, for tests of what is told of an environment.
  """

  alias Chatterbex.{JSON, SetupHelp}
  alias Chatterbex.Setup.{EnvironmentManifest, PackageProfile}

  @packages %{"numpy" => "2.0", "hibari" => "0.2.1", "torch" => "2.6.0"}

  @doc """
  Makes the home in `dir`. Its Python answers, for `environment.py`, that all is well, and for the rest as `scripts` say:
  shell lines by the name of the script that they are for (`:environment` or `:devices`; the lines see the script's
  arguments as `$*`).

  `manifest` is merged into the environment's.
  """
  def make(dir, scripts \\ %{}, manifest \\ %{}) do
    home = Path.join(dir, "home")
    program = Path.join(home, "venv/bin/python")
    {:ok, real} = Chatterbex.Python.find()

    script = """
    case "$*" in
      *provision/environment.py*) shift 2; #{Map.get(scripts, :environment, say(well()))} ;;
      *provision/devices.py*) shift 2; #{Map.get(scripts, :devices, "exit 1")} ;;
      *) exit 3 ;;
    esac
    """

    SetupHelp.fake_python(program, %{libpython: real.libpython}, script)

    :ok =
      EnvironmentManifest.write(
        Path.join(home, "venv"),
        Map.merge(
          %{
            "chatterbex" => "0.1.0",
            "python" => %{"version" => "3.11.7", "base_executable" => program},
            "libpython" => real.libpython,
            "profiles" => Map.new(["hibari", "torch"], &{&1, %{"lock_sha256" => sha256(&1)}}),
            "packages" => @packages
          },
          manifest
        )
      )

    home
  end

  @doc """
  What `environment.py` says of an environment that is well.
  """
  def well(changes \\ %{}) do
    imports = PackageProfile.all() |> Enum.flat_map(& &1.imports) |> Map.new(&{&1, 0.1})
    Map.merge(%{"packages" => @packages, "broken" => %{}, "imports" => imports}, changes)
  end

  @doc """
  Shell lines that print values as JSON, each on a line of its own.
  """
  def say(values) do
    values
    |> List.wrap()
    |> Enum.map_join("; ", fn value ->
      json = value |> JSON.encode() |> String.replace(~r/\n\s*/, "") |> String.replace("'", "'\\''")
      "printf '%s\\n' '#{json}'"
    end)
  end

  @doc """
  How often the home's Python was started for `devices.py`.
  """
  def looks(home), do: home |> Path.join("venv/bin") |> SetupHelp.calls() |> Enum.count(&(&1 =~ "devices.py"))

  defp sha256(name), do: PackageProfile.all() |> Enum.find(&(&1.name == name)) |> PackageProfile.lock_sha256()
end
