defmodule Chatterbex.PackageTest do
  # What `mix hex.build` puts into the package is compiled as a dependency of an empty application.
  # Alone: it compiles an application.
  use ExUnit.Case, async: false

  alias Chatterbex.ArchiveServer
  alias Chatterbex.Native.{Archive, Checksums, Library, Target}

  @moduletag :tmp_dir
  @root File.cwd!()

  setup %{tmp_dir: dir} do
    package = Path.join(dir, "package")
    copy_package(package)
    application = Path.join(dir, "application")
    File.mkdir_p!(application)

    File.write!(Path.join(application, "mix.exs"), """
    defmodule Application.MixProject do
      use Mix.Project
      def project, do: [app: :application, version: "0.1.0", deps: [{:chatterbex, path: "../package"}]]
    end
    """)

    {:ok, package: package, application: application}
  end

  # As Hex does: each entry is a file, a folder or a pattern.
  defp copy_package(package) do
    for pattern <- Mix.Project.config()[:package][:files],
        path <- Path.wildcard(Path.join(@root, pattern), match_dot: true) do
      to = Path.join(package, Path.relative_to(path, @root))
      File.mkdir_p!(Path.dirname(to))
      File.cp_r!(path, to)
    end
  end

  # A PATH with all the programs of this one, but without Rust's.
  defp path_without_rust(dir) do
    bin = Path.join(dir, "bin")
    File.mkdir_p!(bin)

    for folder <- String.split(System.get_env("PATH"), ":"),
        {:ok, names} <- [File.ls(folder)],
        name <- names,
        not String.starts_with?(name, ["cargo", "rust"]),
        do: File.ln_s(Path.join(folder, name), Path.join(bin, name))

    bin
  end

  defp mix(context, arguments, env) do
    unset =
      for name <- ~w(MIX_BUILD_PATH MIX_DEPS_PATH CHATTERBEX_NATIVE_DIR CHATTERBEX_BUILD), do: {name, nil}

    System.cmd("mix", arguments,
      cd: context.application,
      env: [{"MIX_ENV", "prod"} | unset] ++ env,
      stderr_to_stdout: true
    )
  end

  # Loads a native library, and needs no Python.
  @speak "{:ok, audio} = Chatterbex.Audio.silence(500); {:ok, wav} = Chatterbex.Audio.to_wav(audio); IO.puts(byte_size(wav))"

  @tag timeout: 600_000
  test "with prebuilt libraries and without Rust", %{tmp_dir: dir} = context do
    name = Archive.name(Mix.Project.config()[:version], Target.detect().name)
    served = Path.join(dir, "served")
    :ok = Archive.pack(Library.directory(), Path.join(served, name))
    {:ok, _checksums} = Checksums.write(Path.join(context.package, Checksums.file_name()), served)
    assert "checksum-*.exs" in Mix.Project.config()[:package][:files]
    archive = File.read!(Path.join(served, name))
    port = ArchiveServer.start(fn _request -> ArchiveServer.response(200, archive) end)

    env = [
      {"PATH", path_without_rust(dir)},
      {"CARGO_HOME", Path.join(dir, "no-cargo")},
      {"CHATTERBEX_PRECOMPILED_URL", "http://127.0.0.1:#{port}/releases"},
      {"RUSTLER_PRECOMPILED_GLOBAL_CACHE_PATH", Path.join(dir, "cache")},
      {"NO_PROXY", "127.0.0.1"}
    ]

    {output, status} = mix(context, ["run", "-e", @speak], env)
    assert status == 0, output
    assert output =~ "Fetching the native libraries from http://127.0.0.1:#{port}/releases"
    assert output =~ "\n24044\n"
    refute output =~ "warning:"
    path = "/releases/" <> name
    assert_received {:request, "GET", ^path, _headers}

    {output, status} = mix(context, ["run", "-e", @speak], env)
    assert {output, status} == {"24044\n", 0}
  end

  # The crates of others are those that were built for this project: only its own are compiled. That takes a minute, so
  # `mix test` leaves it out: mix test --only cargo
  @tag :cargo
  @tag timeout: 1_200_000
  test "with Rust and without prebuilt libraries", context do
    refute File.exists?(Path.join(context.package, Checksums.file_name()))
    built = Path.join(@root, "native/target/release")

    if File.dir?(built) do
      File.mkdir_p!(Path.join(context.package, "native/target"))
      {_, 0} = System.cmd("cp", ["-a", built, Path.join(context.package, "native/target/release")])
    end

    {output, status} = mix(context, ["run", "-e", @speak], [])
    assert status == 0, output
    assert output =~ "Compiling chatterbex-audio"
    assert output =~ "\n24044\n"
    refute output =~ "warning:"
    assert context.package |> Path.join("priv/native") |> File.ls!() |> Enum.sort() == Library.files()
  end
end
