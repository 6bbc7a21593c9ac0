defmodule Chatterbex.FineTuneTest do
  @moduledoc """
  Fine-tunes through the whole stack: a T3 file of one's own, and a repository on a local hub.
  """
  # Not async: environment variables say where the hub and the cache are.
  use ExUnit.Case, async: false

  import Chatterbex.{LocalHub, TestHelp}

  alias Chatterbex.{Audio, Error, ModelFiles}

  @moduletag skip: no_chatterbox()
  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @t3 "t3_nano_v1.safetensors"

  # A T3 with the weights of another seed.
  defp tuned(path) do
    code = """
    import sys
    from pathlib import Path
    from safetensors.torch import save_file
    from synthetic import t3
    save_file(t3.state_dict(t3.small("nano"), seed=9), Path(sys.argv[1]))
    """

    path_of_library = Path.expand("../../priv/python", __DIR__)
    env = [{"PYTHONPATH", path_of_library}]
    assert {_output, 0} = System.cmd(test_python(), ["-c", code, path], cd: python_tests(), env: env)
    path
  end

  defp speak(server) do
    assert {:ok, %Audio{samples: samples}} =
             Chatterbex.generate("Hello there.", server: server, seed: 3, max_tokens: 5)

    samples
  end

  defp refused(options) do
    options = Keyword.merge([model: :nano, device: :cpu], options)
    server = start_supervised!({Chatterbex, options}, id: make_ref())
    assert {:error, %Error{} = error} = Chatterbex.await_ready(server: server, timeout: 60_000)
    error
  end

  test "a file, and a repository", %{tmp_dir: dir} do
    hub = use_hub(start(), dir)
    folder = checkpoint(:nano)
    path = tuned(Path.join(dir, "tuned.safetensors"))

    [own, tuned] =
      for more <- [[], [t3: path]] do
        server = start_server([model: :nano, checkpoint: folder, device: :cpu] ++ more)
        samples = speak(server)
        Chatterbex.stop(server: server)
        samples
      end

    assert own != tuned

    for name <- File.ls!(folder), do: link(hub, "ResembleAI/chatterbox-nano", name, Path.join(folder, name))
    link(hub, "someone/nano", @t3, path)
    options = [model: :nano, device: :cpu, repo: "someone/nano"]
    # The folder of links is in the home, which all servers of a VM share.
    on_exit(fn -> {:ok, _removed} = ModelFiles.remove(:nano, repo: "someone/nano") end)

    assert %{reason: :model_files_missing, message: message} = refused(options)
    assert String.ends_with?(message, "Run: mix chatterbex.models download nano --repo someone/nano")

    server = start_server([download: true] ++ options)
    assert speak(server) == tuned
    assert {:ok, %{checkpoint: joined}} = Chatterbex.info(server: server)
    assert String.starts_with?(joined, Path.join(Chatterbex.Python.home(), "models/nano-someone--nano-"))
  end

  defp link(hub, repository, name, path) do
    folder = Path.join(hub.root, repository)
    File.mkdir_p!(folder)

    with {:error, _other_disk} <- File.ln(path, Path.join(folder, name)),
         do: File.cp!(path, Path.join(folder, name))
  end

  test "a fine-tune that cannot be loaded is refused, and the error says what to do", %{tmp_dir: dir} do
    folder = checkpoint(:nano)
    missing = Path.join(dir, "missing.safetensors")

    for {options, reason, message} <- [
          {[t3: missing, checkpoint: folder], :model_files_missing,
           "#{missing} is missing. Check the file given as :t3."},
          {[t3: "t3.pt", checkpoint: folder], :invalid_option, "option :t3 must be a .safetensors file"},
          {[t3: Path.join(folder, "ve.safetensors"), checkpoint: folder], :model_load_failed,
           "speech_emb.weight"},
          {[t3: Path.join(checkpoint(:english), "t3_cfg.safetensors"), checkpoint: folder],
           :model_load_failed, "It holds the T3 of english or multilingual"},
          {[repo: "someone/nano", checkpoint: folder], :invalid_option, "either :checkpoint or :repo"},
          {[repo: "nano"], :invalid_option, "a repository's name"},
          {[model: :hibari, repo: "a/b"], :not_supported, "the model :hibari has no files to fetch"}
        ] do
      assert %{reason: ^reason, message: said} = refused(options)
      assert said =~ message
    end
  end
end
