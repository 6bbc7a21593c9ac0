if Code.ensure_loaded?(Igniter.Test) do
  defmodule Mix.Tasks.Chatterbex.InstallTest do
    use ExUnit.Case, async: true

    import Igniter.Test

    defp install(project \\ [], arguments \\ []) do
      project |> test_project() |> Igniter.compose_task(Mix.Tasks.Chatterbex.Install, arguments)
    end

    defp source(igniter, path), do: igniter.rewrite |> Rewrite.source!(path) |> Rewrite.Source.get(:content)

    test "adds a server under the supervisor, a stand-in for the tests, and says what to run" do
      igniter = install()

      assert source(igniter, "lib/test/application.ex") =~
               "children = [{Chatterbex, [name: Test.Speech, model: :hibari]}]"

      assert source(igniter, "config/test.exs") =~ "config :chatterbex, testing: true"
      assert [notice] = igniter.notices
      assert notice =~ "\n    mix chatterbex.setup\n"
      assert notice =~ ~s|Chatterbex.generate(Test.Speech, "Hello, world!")|
      assert igniter.issues == []
    end

    test "a model is an option" do
      igniter = install([], ["--model", "turbo"])
      assert source(igniter, "lib/test/application.ex") =~ "model: :turbo"
      assert [notice] = igniter.notices
      assert notice =~ "\n    mix chatterbex.setup --auto --models turbo\n"

      igniter = install([], ["--model", "trubo"])
      assert [issue] = igniter.issues
      assert issue =~ "no model that speaks is named trubo. There are "
      assert issue =~ ":turbo"
    end

    test "what is there stays as it is" do
      application = """
      defmodule Test.Application do
        use Application

        def start(_type, _args) do
          children = [{Chatterbex, name: Mine, model: :nano}, Test.Endpoint]
          Supervisor.start_link(children, strategy: :one_for_one, name: Test.Supervisor)
        end
      end
      """

      config = """
      import Config
      config :chatterbex, testing: false
      """

      mix = """
      defmodule Test.MixProject do
        use Mix.Project
        def project, do: [app: :test, version: "0.1.0", deps: []]
        def application, do: [mod: {Test.Application, []}]
      end
      """

      files = %{"lib/test/application.ex" => application, "config/test.exs" => config, "mix.exs" => mix}
      [files: files] |> install() |> assert_unchanged(Map.keys(files))
    end
  end
else
  defmodule Mix.Tasks.Chatterbex.InstallTest do
    use ExUnit.Case, async: true

    import ExUnit.CaptureIO

    alias Mix.Tasks.Chatterbex.Install

    test "without Igniter it says what to add by hand" do
      said = capture_io(fn -> Install.run([]) end)
      assert said =~ "Igniter is not installed, so nothing was changed."
      assert said =~ "\n    {Chatterbex, name: Chatterbex.Speech, model: :hibari}\n"
      assert said =~ "\n    config :chatterbex, testing: true\n"
      assert said =~ "\n    mix chatterbex.setup\n"

      said = capture_io(fn -> Install.run(["-m", "turbo"]) end)
      assert said =~ "model: :turbo}"
      assert said =~ "\n    mix chatterbex.setup --auto --models turbo\n"
    end

    test "without Igniter, wrong options are errors too" do
      assert_raise Mix.Error, ~r/no model that speaks is named trubo. There are :/, fn ->
        Install.run(~w(-m trubo))
      end

      assert_raise Mix.Error, ~r/no model that speaks is named conversion/, fn ->
        Install.run(~w(-m conversion))
      end

      assert_raise Mix.Error, ~r/unknown option --modle/, fn -> Install.run(~w(--modle turbo)) end
    end

    @tag skip: "Igniter is not installed"
    test "with Igniter it changes the application"
  end
end
