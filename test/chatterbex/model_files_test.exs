defmodule Chatterbex.ModelFilesDocTest do
  use ExUnit.Case, async: true
  doctest Chatterbex.ModelFiles
end

defmodule Chatterbex.ModelFilesTest do
  # Alone: the environment says where the hub and the cache are.
  use ExUnit.Case, async: false

  import Chatterbex.LocalHub

  alias Chatterbex.{Error, ModelFiles}

  @moduletag :tmp_dir

  case Chatterbex.Python.find(profiles: ["torch"]) do
    {:ok, _python} -> :ok
    {:error, _error} -> @moduletag skip: "huggingface_hub is not installed: mix chatterbex.setup --cpu"
  end

  @nano "ResembleAI/chatterbox-nano"
  @base "ResembleAI/chatterbox"

  setup %{tmp_dir: dir} do
    %{hub: start(dir)}
  end

  # As the user's, but without the seconds between attempts.
  defp download(model, options),
    do: ModelFiles.download(model, Keyword.put_new(options, :patience, wait: 0.01, attempts: 3))

  defp fetch!(model, options \\ []) do
    assert {:ok, folder} = download(model, options)
    folder
  end

  defp sizes(folder), do: Map.new(File.ls!(folder), &{&1, File.stat!(Path.join(folder, &1)).size})

  describe "fetching" do
    test "brings all files of a model, none else, and gives their folder", %{hub: hub} do
      set = serve(hub, :nano)
      write(hub, @nano, "s3gen.safetensors", "of no use to the model")
      folder = fetch!(:nano)

      [%{files: files}] = set.sources
      assert sizes(folder) == Map.new(files, &{&1.name, byte_size(content(&1.name, @nano))})
      assert ModelFiles.locate(:nano) == {:ok, folder}
      assert ModelFiles.locate("nano", checkpoint: folder) == {:ok, folder}
      assert Enum.all?(requests(hub), &(&1["agent"] =~ "chatterbex"))
    end

    test "what is there is not asked for again", %{hub: hub} do
      serve(hub, :nano)
      folder = fetch!(:nano)
      asked = length(requests(hub))
      assert fetch!(:nano) == folder
      assert length(requests(hub)) == asked
    end
  end

  describe "locate" do
    test "names what is missing and the command to run" do
      assert {:error, %Error{reason: :model_files_missing} = error} =
               ModelFiles.locate(:multilingual, version: :v2)

      assert error.message =~ "#{@base} is not in the Hugging Face cache, #{ModelFiles.cache_folder()}. Run: "
      assert String.ends_with?(error.message, "mix chatterbex.models download multilingual --version v2")
      assert "t3_mtl23ls_v2.safetensors" in error.details.files
    end
  end
end
