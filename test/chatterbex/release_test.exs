defmodule Chatterbex.ReleaseTest do
  # Not async: it compiles an application.
  use ExUnit.Case, async: false

  @moduletag :tmp_dir

  @tag timeout: 600_000
  test "a release of an application that depends on the library speaks, from another folder", %{tmp_dir: dir} do
    consumer = Path.expand("../fixtures/consumer", __DIR__)
    build = Path.join(dir, "build")
    File.mkdir_p!(build)

    environment = [
      {"MIX_ENV", "prod"},
      {"CONSUMER_BUILD_PATH", build},
      {"MIX_BUILD_PATH", nil},
      {"MIX_DEPS_PATH", nil}
    ]

    release = Path.join(dir, "release")

    {output, status} =
      System.cmd("mix", ["release", "--path", release],
        cd: consumer,
        env: environment,
        stderr_to_stdout: true
      )

    assert status == 0, output

    elsewhere = Path.join(dir, "elsewhere")
    File.mkdir_p!(elsewhere)

    code = ~s|:ok = Consumer.speak("This is a release.", "release.wav"); IO.puts("spoken")|
    command = ["eval", "{:ok, _apps} = Application.ensure_all_started(:consumer); #{code}"]

    {output, status} =
      System.cmd(Path.join(release, "bin/consumer"), command,
        cd: elsewhere,
        env: [{"RELEASE_TMP", Path.join(dir, "tmp")}, {"CHATTERBEX_NATIVE_DIR", nil}],
        stderr_to_stdout: true
      )

    assert status == 0, output
    assert output =~ "spoken"
    assert {:ok, audio} = Chatterbex.Audio.read(Path.join(elsewhere, "release.wav"))
    assert Chatterbex.Audio.duration(audio) > 0.5

    # An isolated model, in a VM that boots the whole release and is not distributed. The model's own VM does not boot it.
    File.rm!(Path.join(elsewhere, "started_by"))

    {output, status} =
      System.cmd("timeout", ["--signal=KILL", "120", Path.join(release, "bin/consumer"), "start"],
        cd: elsewhere,
        env: [
          {"CONSUMER_ISOLATED", "1"},
          {"RELEASE_DISTRIBUTION", "none"},
          {"RELEASE_TMP", Path.join(dir, "tmp")},
          {"CHATTERBEX_NATIVE_DIR", nil},
          {"PATH", "/usr/sbin:/bin:/sbin"}
        ],
        stderr_to_stdout: true
      )

    assert status == 0, output
    assert output =~ "died: 1; distributed: false"
    assert [_one_vm] = elsewhere |> Path.join("started_by") |> File.read!() |> String.split()
  end
end
