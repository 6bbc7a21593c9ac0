defmodule Chatterbex.PhoenixBeside do
  @moduledoc """
  Phoenix LiveView from beside the project, which depends on none of it.

  `CHATTERBEX_PHOENIX` names the folder of an application that has Phoenix LiveView and Bandit among its dependencies, and
  that `mix compile` has compiled with this VM.
  """

  @needed [:phoenix_live_view, :bandit, :jason]

  @doc """
  Why tests that need Phoenix cannot run here, for `@moduletag skip:`; `false` where they can.
  """
  def missing do
    cond do
      System.get_env("CHATTERBEX_PHOENIX") == nil ->
        "Phoenix is not here: CHATTERBEX_PHOENIX names no application with Phoenix LiveView and Bandit"

      library() == nil ->
        "the application that CHATTERBEX_PHOENIX names has not compiled #{inspect(@needed)}"

      true ->
        false
    end
  end

  @doc """
  Loads Phoenix, compiles what the library has for it, and the page of the tests.

  The stand-in for telemetry makes way for the real one. That for Plug cannot: where its tests are in this VM, it raises.
  """
  def load! do
    if match?({:file, file} when is_list(file) and file != [], :code.is_loaded(Plug)) and
         not File.exists?(to_string(:code.which(Plug))),
       do:
         raise(
           "a stand-in for Plug is loaded. Run the tests in a browser alone: mix test --only browser test/browser"
         )

    for folder <- Path.wildcard(Path.join(library(), "*/ebin")),
        Path.basename(Path.dirname(folder)) != "chatterbex",
        do: true = Code.prepend_path(folder)

    :code.purge(:telemetry)
    :code.delete(:telemetry)

    for application <- @needed, do: {:ok, _started} = Application.ensure_all_started(application)

    for file <- ["../../lib/chatterbex/live_view.ex", "../fixtures/live_view/page.ex"],
        do: Code.compile_file(Path.expand(file, __DIR__))

    :ok
  end

  defp library do
    folder = System.get_env("CHATTERBEX_PHOENIX", "")

    folder
    |> Path.join("_build/{dev,test,prod}/lib")
    |> Path.wildcard()
    |> Enum.find(fn library -> Enum.all?(@needed, &File.dir?(Path.join(library, "#{&1}/ebin"))) end)
  end
end
