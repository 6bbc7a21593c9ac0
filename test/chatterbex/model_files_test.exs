defmodule Chatterbex.ModelFilesDocTest do
  use ExUnit.Case, async: true
  doctest Chatterbex.ModelFiles
  doctest Chatterbex.Terminal
end

defmodule Chatterbex.ModelFilesTest do
  # Not async: environment variables say where the hub and the cache are.
  use ExUnit.Case, async: false

  import Chatterbex.LocalHub
  import ExUnit.CaptureIO

  alias Chatterbex.{Error, ModelFiles}

  @moduletag :tmp_dir

  case Chatterbex.Python.find(profiles: ["torch"]) do
    {:ok, _python} -> :ok
    {:error, _error} -> @moduletag skip: "huggingface_hub is not installed: mix chatterbex.setup --cpu"
  end

  @nano "ResembleAI/chatterbox-nano"
  @base "ResembleAI/chatterbox"
  @turbo "ResembleAI/chatterbox-turbo"
  @hindi "ResembleAI/Chatterbox-Multilingual-hi"

  setup_all do
    %{hub: start()}
  end

  setup %{hub: hub, tmp_dir: dir} do
    %{hub: use_hub(hub, dir)}
  end

  # As for users, but without the delays between attempts.
  defp download(model, options),
    do: ModelFiles.download(model, Keyword.put_new(options, :patience, wait: 0.01, attempts: 3))

  defp fetch!(model, options \\ []) do
    assert {:ok, folder} = download(model, options)
    folder
  end

  defp refused(model, reason, options \\ []) do
    assert {:error, %Error{reason: ^reason} = error} = download(model, options)
    error
  end

  defp sizes(folder), do: Map.new(File.ls!(folder), &{&1, File.stat!(Path.join(folder, &1)).size})

  defp blob(folder, name) do
    path = Path.join(folder, name)
    Path.expand(File.read_link!(path), folder)
  end

  # The same, except for some bytes in the middle.
  defp spoil(path) do
    content = File.read!(path)
    place = div(byte_size(content), 2)

    File.write!(
      path,
      binary_part(content, 0, place) <>
        "spoilt" <> binary_part(content, place + 6, byte_size(content) - place - 6)
    )
  end

  defp in_cache(path), do: Path.join(ModelFiles.cache_folder(), path)

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

    test "asks nobody where nothing is missing, unless it is forced", %{hub: hub} do
      serve(hub, :nano)
      folder = fetch!(:nano)
      asked = length(requests(hub))
      assert fetch!(:nano) == folder
      assert length(requests(hub)) == asked

      write(hub, @nano, "vocab.json", ~s({"newer": 1}))
      newer = fetch!(:nano, force: true)
      refute newer == folder
      assert File.read!(Path.join(newer, "vocab.json")) == ~s({"newer": 1})
      assert ModelFiles.locate(:nano) == {:ok, newer}
      assert length(requests(hub, "GET")) == 9 + 4 + 1, "what has not changed is not fetched again"
    end

    test "a file that only some requests need is fetched too, but not missed", %{hub: hub} do
      serve(hub, :multilingual)
      folder = fetch!(:multilingual)
      cangjie = Path.join(folder, "Cangjie5_TC.json")
      File.rm!(cangjie)
      assert ModelFiles.locate(:multilingual) == {:ok, folder}
      fetch!(:multilingual)
      assert File.read!(cangjie) == content("Cangjie5_TC.json")

      File.rm_rf!(ModelFiles.cache_folder())
      File.rm!(Path.join([hub.root, @base, "Cangjie5_TC.json"]))
      assert {:ok, _files} = download(:multilingual, [])
      asked = length(requests(hub))
      fetch!(:multilingual)
      assert length(requests(hub)) == asked, "the hub has no such file, and is not asked again"
    end

    test "goes on after a cut connection", %{hub: hub} do
      serve(hub, :nano)
      fail(hub, path: "large/", method: "GET", cut: 100_000)
      folder = fetch!(:nano)
      assert {:ok, _files} = ModelFiles.verify(:nano)
      assert File.stat!(Path.join(folder, "t3_nano_v1.safetensors")).size > 300_000
      starts = for %{"path" => "/large/" <> _checksum, "start" => start} <- requests(hub, "GET"), do: start
      assert 100_000 in starts
    end

    test "goes on where an earlier download ended, and says so meanwhile", %{hub: hub} do
      serve(hub, :nano)
      fail(hub, path: "large/", method: "GET", cut: 100_000)
      fail(hub, path: "large/", method: "GET", status: 503, times: 2)
      error = refused(:nano, :model_files_missing)

      assert %{why: :connection, file: "t3_nano_v1.safetensors", repository: @nano, status: 503} =
               error.details

      assert error.message =~ "The next download continues from here"

      assert {:error, error} = ModelFiles.locate(:nano)

      assert error.message =~
               "A download was interrupted: the next one continues there. Run: mix chatterbex.models"

      fetch!(:nano)
      assert List.last(for(%{"start" => start} when start > 0 <- requests(hub), do: start)) == 100_000
      assert {:ok, _files} = ModelFiles.verify(:nano)
    end

    test "tells how far it is, to the caller and as events", %{hub: hub} do
      serve(hub, :conversion)
      test = self()
      id = make_ref()
      events = for event <- Chatterbex.Telemetry.events(), :download in event, do: event

      :telemetry.attach_many(
        id,
        events,
        fn event, numbers, about, _ -> send(test, {List.last(event), numbers, about}) end,
        nil
      )

      on_exit(fn -> :telemetry.detach(id) end)

      fail(hub, path: "large/", method: "GET", hold: 200_000)
      task = Task.async(fn -> download(:conversion, on_progress: &send(test, {:told, &1})) end)

      assert_receive {:told, %{status: :fetching, model: :conversion, file: "s3gen.safetensors"} = told},
                     30_000

      assert told.file_bytes in 1..200_000
      assert told.total == told.file_total + byte_size(content("conds.pt", @base))
      assert_receive {:start, %{system_time: _time}, %{model: :conversion, revision: "main"}}

      assert_receive {:progress, %{bytes: _bytes, total: _total},
                      %{model: :conversion, file: "s3gen.safetensors"}}

      release(hub)

      assert {:ok, folder} = Task.await(task, 30_000)
      assert_received {:told, %{status: :done, file: "conds.pt", bytes: total, total: total}}
      assert_received {:stop, %{duration: _duration, fetched: ^total, total: ^total}, %{folder: ^folder}}

      File.rm_rf!(ModelFiles.cache_folder())
      fail(hub, status: 401)
      error = refused(:conversion, :model_files_missing)

      assert_received {:stop, %{duration: _duration}, %{error: ^error, model: :conversion}}
    end

    test "ends with its caller", %{hub: hub} do
      serve(hub, :nano)
      System.put_env("HF_HUB_DOWNLOAD_TIMEOUT", "600")
      fail(hub, path: "large/", method: "GET", hold: 200_000)
      test = self()
      report = &send(test, {:told, &1})
      {caller, monitor} = spawn_monitor(fn -> download(:nano, on_progress: report) end)
      assert_receive {:told, %{status: :fetching, file_bytes: bytes}} when bytes > 0, 30_000
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}

      # The first process has the file's lock while it lives, and the hub still holds its answer.
      fetch!(:nano)

      assert [_held, %{"start" => start} | _others] =
               for(%{"path" => "/large/" <> _sum} = one <- requests(hub, "GET"), do: one)

      assert start > 0
    end

    test "two at once fetch each file once", %{hub: hub} do
      serve(hub, :nano)
      test = self()
      fail(hub, path: "large/", method: "GET", hold: 200_000)
      first = Task.async(fn -> download(:nano, []) end)
      await_held(hub)
      second = Task.async(fn -> download(:nano, on_progress: &send(test, {:told, &1})) end)
      assert_receive {:told, %{status: :waiting, message: "another process is fetching it"}}, 30_000
      release(hub)
      assert Task.await(first, 30_000) == Task.await(second, 30_000)
      large = for %{"path" => "/large/" <> sum} <- requests(hub, "GET"), do: sum
      assert large == Enum.uniq(large)
    end

    test "another revision", %{hub: hub} do
      serve(hub, :conversion)
      for name <- ["s3gen.safetensors", "conds.pt"], do: write(hub, @base <> "@v1", name, content(name, "v1"))
      folder = fetch!(:conversion, revision: "v1")
      assert File.read!(Path.join(folder, "conds.pt")) == content("conds.pt", "v1")
      assert {:ok, ^folder} = ModelFiles.locate(:conversion, revision: Path.basename(folder))
      assert {:error, error} = ModelFiles.locate(:conversion)
      assert error.message =~ "Run: mix chatterbex.models download conversion"
    end

    test "a language pack is joined from two repositories, under the names that are loaded", %{hub: hub} do
      serve(hub, :multilingual, language_pack: "hi")
      home = Path.join(hub.dir, "home")
      File.mkdir_p!(home)
      File.ln_s!(Chatterbex.Python.venv(Chatterbex.Python.home()), Path.join(home, "venv"))
      options = [language_pack: "hi", home: home]
      folder = fetch!(:multilingual, options)

      assert Enum.sort(File.ls!(folder)) ==
               ~w(conds.pt grapheme_mtl_merged_expanded_v1.json s3gen.pt t3_hi.safetensors ve.pt)

      assert File.read!(Path.join(folder, "s3gen.pt")) == content("s3gen_v3.pt", @hindi)
      assert File.read!(Path.join(folder, "ve.pt")) == content("ve.pt", @base)
      assert String.starts_with?(folder, Path.join(home, "models/multilingual-hi-"))
      assert ModelFiles.locate(:multilingual, options) == {:ok, folder}
      assert {:ok, [_t3 | _others]} = ModelFiles.verify(:multilingual, options)
      assert {:ok, ^folder} = ModelFiles.locate(:multilingual, language_pack: "hi", checkpoint: folder)

      assert {:ok, %{files: files}} = ModelFiles.remove(:multilingual, options)
      assert length(files) == 5
      refute File.exists?(folder)
      assert File.ls!(ModelFiles.cache_folder()) == [".locks"]
    end
  end

  describe "the distilled flow" do
    setup %{hub: hub} do
      home = Path.join(hub.dir, "home")
      File.mkdir_p!(home)
      File.ln_s!(Chatterbex.Python.venv(Chatterbex.Python.home()), Path.join(home, "venv"))
      %{home: home}
    end

    test "is turbo's file in the place of the model's own", %{hub: hub, home: home} do
      serve(hub, :english, flow: :meanflow)
      options = [flow: :meanflow, home: home]
      assert {:error, error} = ModelFiles.locate(:english, options)
      assert error.message =~ "the files of :english (flow meanflow) are not all on this machine"
      assert error.message =~ "Run: mix chatterbex.models download english --flow meanflow"

      folder = fetch!(:english, options)

      assert Enum.sort(File.ls!(folder)) ==
               ~w(conds.pt s3gen_meanflow.safetensors t3_cfg.safetensors tokenizer.json ve.safetensors)

      assert File.read!(Path.join(folder, "s3gen_meanflow.safetensors")) ==
               content("s3gen_meanflow.safetensors", @turbo)

      assert ModelFiles.locate(:english, flow: "meanflow", home: home) == {:ok, folder}
      assert {:ok, [_t3 | _others]} = ModelFiles.verify(:english, options)
      assert {:error, _not_here} = ModelFiles.locate(:english, flow: :cfm, home: home)
      assert {:error, _not_here} = ModelFiles.locate(:turbo, home: home)

      assert {:ok, ^folder} = ModelFiles.locate(:english, flow: :meanflow, checkpoint: folder)
      assert {:error, error} = ModelFiles.locate(:english, checkpoint: folder)
      assert error.message =~ "s3gen.safetensors is missing"

      assert {:ok, %{files: files}} = ModelFiles.remove(:english, options)
      assert length(files) == 5
      refute File.exists?(folder)
    end

    test "stays where turbo needs it, and turbo's other files do", %{hub: hub, home: home} do
      serve(hub, :turbo)
      serve(hub, :conversion, flow: :meanflow)
      turbo = fetch!(:turbo)
      options = [flow: :meanflow, home: home]
      fetch!(:conversion, options)
      assert {:ok, %{files: [conditionals]}} = ModelFiles.remove(:conversion, options)
      assert Path.basename(conditionals) == "conds.pt"
      assert ModelFiles.locate(:turbo) == {:ok, turbo}
    end

    test "works with a language pack and with a fine-tune", %{hub: hub, home: home} do
      serve(hub, :multilingual, language_pack: "hi", flow: :meanflow)
      options = [language_pack: "hi", flow: :meanflow, home: home]
      folder = fetch!(:multilingual, options)

      assert Enum.sort(File.ls!(folder)) ==
               ~w(conds.pt grapheme_mtl_merged_expanded_v1.json s3gen_meanflow.safetensors t3_hi.safetensors ve.pt)

      serve(hub, :english)
      write(hub, "someone/german", "t3_cfg.safetensors", content("t3_cfg.safetensors", "someone/german"))
      options = [repo: "someone/german", flow: :meanflow, home: home]
      folder = fetch!(:english, options)
      assert ModelFiles.locate(:english, options) == {:ok, folder}

      assert Enum.sort(File.ls!(folder)) ==
               ~w(conds.pt s3gen_meanflow.safetensors t3_cfg.safetensors tokenizer.json ve.safetensors)

      assert File.read!(Path.join(folder, "t3_cfg.safetensors")) ==
               content("t3_cfg.safetensors", "someone/german")

      refute Enum.any?(requests(hub), &(&1["path"] =~ "/s3gen.safetensors"))
    end
  end

  describe "a fine-tune" do
    @tuned "someone/chatterbox-german"

    setup %{hub: hub} do
      serve(hub, :english)
      home = Path.join(hub.dir, "home")
      File.mkdir_p!(home)
      File.ln_s!(Chatterbex.Python.venv(Chatterbex.Python.home()), Path.join(home, "venv"))
      %{options: [repo: @tuned, home: home]}
    end

    test "provides its T3 and other files, and the model's own repository the rest",
         %{hub: hub, options: options} do
      write(hub, @tuned, "t3_cfg.safetensors", safetensors("tuned", 1000))
      write(hub, @tuned, "tokenizer.json", ~s({"of": "the fine-tune"}))
      write(hub, @tuned, "optimizer.pt", "of no use to the model")
      folder = fetch!(:english, options)

      assert Enum.sort(File.ls!(folder)) ==
               ~w(conds.pt s3gen.safetensors t3_cfg.safetensors tokenizer.json ve.safetensors)

      assert File.read!(Path.join(folder, "t3_cfg.safetensors")) == safetensors("tuned", 1000)
      assert File.read!(Path.join(folder, "tokenizer.json")) == ~s({"of": "the fine-tune"})
      assert File.read!(Path.join(folder, "conds.pt")) == content("conds.pt", @base)
      refute Enum.any?(requests(hub), &(&1["path"] =~ "#{@base}/resolve/main/t3_cfg"))

      assert ModelFiles.locate(:english, options) == {:ok, folder}
      asked = length(requests(hub))
      assert fetch!(:english, options) == folder
      assert length(requests(hub)) == asked
      assert {:ok, [_ | _] = files} = ModelFiles.verify(:english, options)
      assert length(files) == 5

      # The model itself is another one, which is not downloaded.
      assert {:error, %Error{reason: :model_files_missing}} = ModelFiles.locate(:english)
      tuned = folder
      folder = fetch!(:english)
      assert File.read!(Path.join(folder, "t3_cfg.safetensors")) == content("t3_cfg.safetensors", @base)

      assert {:ok, %{files: files}} = ModelFiles.remove(:english, options)
      assert Enum.sort(Enum.map(files, &Path.basename/1)) == ~w(t3_cfg.safetensors tokenizer.json)
      refute File.exists?(tuned)
      assert ModelFiles.locate(:english) == {:ok, folder}
    end

    test "that has all files needs no other repository", %{hub: hub, options: options} do
      for file <- ~w(t3_cfg.safetensors s3gen.safetensors ve.safetensors tokenizer.json conds.pt),
          do: write(hub, @tuned, file, content(file, @tuned))

      folder = fetch!(:english, options)
      assert folder =~ "models--someone--chatterbox-german/snapshots/"
      refute Enum.any?(requests(hub), &(&1["path"] =~ @base))
    end

    test "may use any name for its T3, and have revisions", %{hub: hub, options: options} do
      write(hub, @tuned, "README.md", "A fine-tune")
      write(hub, @tuned <> "@v2", "weights/t3_german.safetensors", safetensors("german", 2000))
      error = refused(:english, :model_files_missing, [revision: "v2"] ++ options)
      assert %{why: :not_found, file: "t3_cfg.safetensors", repository: @tuned} = error.details
      assert error.message =~ "the files of :english (repository #{@tuned}) were not fetched"
      assert error.message =~ "If its T3 has another name, give that as :t3"

      options = [t3: "weights/t3_german.safetensors", revision: "v2"] ++ options
      folder = fetch!(:english, options)
      assert File.read!(Path.join(folder, "t3_cfg.safetensors")) == safetensors("german", 2000)
      assert length(File.ls!(folder)) == 5
      assert ModelFiles.locate(:english, options) == {:ok, folder}
    end

    test "that was partly fetched is completed", %{hub: hub, options: options} do
      write(hub, @tuned, "t3_cfg.safetensors", safetensors("tuned", 1000))
      write(hub, @tuned, "tokenizer.json", "{}")
      fail(hub, path: "tokenizer", method: "GET", status: 503, times: 3)
      refused(:english, :model_files_missing, options)
      assert {:error, error} = ModelFiles.locate(:english, options)
      assert error.message =~ "#{@tuned} is not in the Hugging Face cache"
      assert String.ends_with?(error.message, "Run: mix chatterbex.models download english --repo #{@tuned}")
      folder = fetch!(:english, options)
      assert File.read!(Path.join(folder, "tokenizer.json")) == "{}"
    end

    test "that another program fetched is completed", %{hub: hub, options: options} do
      write(hub, @tuned, "t3_cfg.safetensors", safetensors("tuned", 1000))
      folder = fetch!(:english, options)
      File.rm_rf!(in_cache("models--someone--chatterbox-german/.no_exist"))
      assert {:error, error} = ModelFiles.locate(:english, options)

      assert error.message =~
               "s3gen.safetensors is missing, ve.safetensors is missing, tokenizer.json is missing"

      assert fetch!(:english, options) == folder
    end

    test "may be one file, which replaces the model's T3", %{hub: hub, tmp_dir: dir} do
      path = Path.join(dir, "german.safetensors")
      options = [t3: path]

      for {content, fault} <- [
            {nil, "is missing"},
            {"", "is empty"},
            {<<1000::little-64, "cut">>, "is cut short"}
          ] do
        if content, do: File.write!(path, content)
        fetch_error = refused(:english, :model_files_missing, options)
        assert fetch_error.message =~ "the T3 of :english cannot be used: #{path} #{fault}"
        assert fetch_error.message =~ "Check the file given as :t3."
        assert fetch_error.details.path == path
      end

      File.write!(path, safetensors("german", 1000))
      folder = fetch!(:english, options)
      assert Enum.sort(File.ls!(folder)) == ~w(conds.pt s3gen.safetensors tokenizer.json ve.safetensors)
      refute Enum.any?(requests(hub), &(&1["path"] =~ "t3_cfg"))
      assert ModelFiles.locate(:english, options) == {:ok, folder}
      assert ModelFiles.locate(:english, [checkpoint: folder] ++ options) == {:ok, folder}
      assert {:ok, files} = ModelFiles.verify(:english, options)
      assert path in Enum.map(files, & &1.file)

      File.write!(path, safetensors("german", 1000) <> "x")
      assert {:error, %Error{reason: :model_load_failed} = error} = ModelFiles.verify(:english, options)
      assert error.details.files == [path]
      assert {:error, error} = ModelFiles.locate(:english, t3: path, version: :v2)
      assert error.reason == :not_supported

      File.rm!(Path.join(folder, "conds.pt"))
      assert {:error, error} = ModelFiles.locate(:english, options)

      assert error.message =~
               "the files of :english (T3 #{path}) are not all on this machine: conds.pt is missing"
    end
  end

  describe "a hub that refuses" do
    setup %{hub: hub} do
      serve(hub, :nano)
      :ok
    end

    test "a gated repository: what to accept, which variable to set", %{hub: hub} do
      write(hub, @nano, ".token", "right")
      error = refused(:nano, :model_files_missing)
      assert %{why: :gated, file: "t3_nano_v1.safetensors", repository: @nano} = error.details
      assert error.message =~ "the files of :nano were not fetched: #{@nano} is gated"
      assert error.message =~ "Accept its licence at #{hub.url}/#{@nano}"
      assert error.message =~ "HF_TOKEN"

      System.put_env("HF_TOKEN", "right")
      fetch!(:nano)
      assert Enum.all?(requests(hub), &(&1["host"] == "127.0.0.1" or &1["token"] == ""))
    end

    test "no such repository, file or revision", %{hub: hub} do
      error = refused(:turbo, :model_files_missing)
      assert %{why: :unauthorized, repository: "ResembleAI/chatterbox-turbo", status: 401} = error.details

      File.rm!(Path.join([hub.root, @nano, "merges.txt"]))
      error = refused(:nano, :model_files_missing)
      assert %{why: :not_found, file: "merges.txt", repository: @nano} = error.details
      assert error.message =~ "#{@nano} has no file merges.txt in this revision"

      error = refused(:nano, :model_files_missing, revision: "v9")
      assert error.message =~ "#{@nano} has no such revision"
    end

    test "too many requests", %{hub: hub} do
      fail(hub, path: "vocab.json", status: 429, headers: %{"Retry-After" => "0"})
      fetch!(:nano)

      File.rm_rf!(ModelFiles.cache_folder())
      fail(hub, path: "vocab.json", status: 429, headers: %{"Retry-After" => "3600"})
      error = refused(:nano, :model_files_missing)
      assert %{why: :rate_limited, retry_after: 3600.0, file: "vocab.json"} = error.details
      assert error.message =~ "Try again in 3600 s"
    end

    test "a wrong checksum: refused, deleted, and fetched the next time", %{hub: hub} do
      fail(hub, path: "large/", method: "GET", spoil: true)
      error = refused(:nano, :model_files_missing)
      assert %{why: :checksum, file: "t3_nano_v1.safetensors"} = error.details
      assert File.ls!(in_cache("models--ResembleAI--chatterbox-nano/blobs")) == []
      fetch!(:nano)
    end

    test "a hub that does not answer" do
      System.put_env("HF_ENDPOINT", "http://127.0.0.1:9")
      error = refused(:nano, :model_files_missing)
      assert error.details.why == :connection
      assert error.message =~ "cannot be fetched from http://127.0.0.1:9"
    end

    test "offline: local files are found, missing ones are named", %{hub: hub} do
      folder = fetch!(:nano)
      asked = length(requests(hub))
      System.put_env("HF_HUB_OFFLINE", "1")
      assert fetch!(:nano) == folder
      error = refused(:turbo, :model_files_missing)
      assert error.details.why == :offline
      assert error.message =~ "HF_HUB_OFFLINE forbids downloading them"
      assert error.message =~ "ResembleAI/chatterbox-turbo into #{ModelFiles.cache_folder()}"
      assert length(requests(hub)) == asked
    end
  end

  describe "this machine" do
    unless mountable?(), do: @tag(skip: "no disk can be mounted here (not root)")

    test "a full disk", %{hub: hub, tmp_dir: dir} do
      serve(hub, :nano)
      disk = Path.join(dir, "disk")
      File.mkdir_p!(disk)
      {_said, 0} = mount(disk)
      on_exit(fn -> System.cmd("umount", [disk]) end)
      System.put_env("HF_HOME", disk)
      error = refused(:nano, :file_error)
      assert %{why: :disk_full, needed: needed, free: free} = error.details
      assert needed > free
      assert error.message =~ "#{disk} has no room for them"
      assert error.message =~ "set HF_HOME to another folder"
    end

    test "a cache that cannot be written", %{hub: hub, tmp_dir: dir} do
      serve(hub, :nano)
      file = Path.join(dir, "file")
      File.write!(file, "")
      System.put_env("HF_HOME", file)
      error = refused(:nano, :file_error)
      assert error.details.why == :file
      assert error.message =~ "#{file}/"
    end

    test "no Python environment", %{tmp_dir: dir} do
      error = refused(:nano, :not_set_up, home: Path.join(dir, "nowhere"))
      assert error.message =~ "Run: mix chatterbex.setup"
    end

    test "the cache is where huggingface_hub has it", %{tmp_dir: dir} do
      System.delete_env("HF_HOME")
      System.put_env("XDG_CACHE_HOME", dir)
      on_exit(fn -> System.delete_env("XDG_CACHE_HOME") end)
      assert ModelFiles.cache_folder() == Path.join(dir, "huggingface/hub")
      System.put_env("HF_HOME", "$XDG_CACHE_HOME/${XDG_CACHE_HOME}")
      assert ModelFiles.cache_folder() == Path.expand("#{dir}/#{dir}/hub")
      System.put_env("HUGGINGFACE_HUB_CACHE", "/old")
      assert ModelFiles.cache_folder() == "/old"
      System.put_env("HF_HUB_CACHE", "~/new")
      assert ModelFiles.cache_folder() == Path.join(System.user_home!(), "new")
    end
  end

  describe "locate" do
    test "names what is missing and the command to run" do
      assert {:error, %Error{reason: :model_files_missing} = error} =
               ModelFiles.locate(:multilingual, version: "v2")

      assert error.message =~ "#{@base} is not in the Hugging Face cache, #{ModelFiles.cache_folder()}. Run: "
      assert String.ends_with?(error.message, "mix chatterbex.models download multilingual --version v2")
      assert "t3_mtl23ls_v2.safetensors" in error.details.files
    end

    test "names each file that cannot be used, and why", %{hub: hub} do
      serve(hub, :nano)
      folder = fetch!(:nano)
      File.write!(blob(folder, "t3_nano_v1.safetensors"), <<1000::little-64, "cut">>)
      File.write!(blob(folder, "vocab.json"), "")
      File.rm!(blob(folder, "merges.txt"))
      File.rm!(Path.join(folder, "conds.pt"))
      File.mkdir!(Path.join(folder, "conds.pt"))

      assert {:error, %Error{reason: :model_files_missing} = error} = ModelFiles.locate(:nano)

      assert error.message =~
               "t3_nano_v1.safetensors is cut short, conds.pt is not a file, vocab.json is empty, merges.txt is missing"

      assert error.details.files == ~w(t3_nano_v1.safetensors conds.pt vocab.json merges.txt)
      assert error.details.folder == folder

      assert {:error, error} = ModelFiles.locate(:nano, checkpoint: folder)
      assert error.message =~ "t3_nano_v1.safetensors is cut short"
      assert error.message =~ "Check the folder given as :checkpoint"
    end

    test "in a release, the command is the release's", %{tmp_dir: dir} do
      System.put_env(%{"RELEASE_ROOT" => dir, "RELEASE_NAME" => "speech"})
      on_exit(fn -> System.put_env(%{"RELEASE_ROOT" => nil, "RELEASE_NAME" => nil}) end)
      assert {:error, error} = ModelFiles.locate(:multilingual, language_pack: "hi")

      assert String.ends_with?(
               error.message,
               ~s[Run: #{dir}/bin/speech eval 'Chatterbex.ModelFiles.download!(:multilingual, language_pack: "hi")']
             )
    end

    test "refuses nonsense" do
      for {model, options, reason, message} <- [
            {:nono, [], :unknown_model, "there is no model :nono. Did you mean :nano?"},
            {:hibari, [], :not_supported, "the model :hibari has no files to fetch"},
            {:turbo, [version: :v2], :not_supported, "has no option :version; only :multilingual has it"},
            {:nano, [language_pack: "hi"], :not_supported, "has no option :language_pack"},
            {:nano, [flow: :meanflow], :not_supported,
             "has no option :flow; only :english, :multilingual, :conversion have it."},
            {:english, [flow: :mean], :invalid_option,
             "option :flow must be one of :cfm, :meanflow, got :mean"},
            {:multilingual, [version: :v4], :invalid_option, "must be one of :v3, :v2, got :v4"},
            {:multilingual, [language_pack: "fr"], :invalid_option, ~s("zh-cmn", "es-mx-latam")},
            {:multilingual, [language_pack: "hi", version: :v3], :invalid_option, "give either"},
            {:conversion, [repo: "a/b"], :not_supported, "the model :conversion has no T3"},
            {:conversion, [t3: "a.safetensors"], :not_supported, "it has no option :t3"},
            {:hibari, [t3: "a.safetensors"], :not_supported, "the model :hibari has no files"},
            {:nano, [repo: "nano"], :invalid_option, ~s(a repository's name, as "someone/chatterbox-german")},
            {:nano, [repo: "../../etc"], :invalid_option, "a repository's name"},
            {:nano, [repo: "a/.."], :invalid_option, "a repository's name"},
            {:nano, [repo: 7], :invalid_option, "a repository's name"},
            {:nano, [t3: "t3.pt"], :invalid_option, "option :t3 must be a .safetensors file"},
            {:nano, [t3: :t3], :invalid_option, "option :t3 must be a .safetensors file"},
            {:nano, [repo: "a/b", t3: "../x.safetensors"], :invalid_option, "a file in the repository"},
            {:nano, [repo: "a/b", t3: "/x.safetensors"], :invalid_option, "a file in the repository"},
            {:nano, [repo: "a/b", checkpoint: "c"], :invalid_option, "either :checkpoint or :repo"},
            {:multilingual, [repo: "a/b", language_pack: "hi"], :invalid_option, "either :repo or"},
            {:nano, [revision: "../../etc"], :invalid_option, "a branch, a tag or a commit"},
            {:nano, [revision: "a/../b"], :invalid_option, "a branch, a tag or a commit"},
            {:nano, [revison: "main"], :invalid_option, "Did you mean :revision?"},
            {:nano, [checkpoint: 1], :invalid_option, "must be a folder's path, got 1"},
            {:nano, [1], :invalid_option, "must be a keyword list"}
          ] do
        assert {:error, %Error{reason: ^reason} = error} = ModelFiles.locate(model, options)
        assert error.message =~ message
      end

      assert {:error, error} = ModelFiles.download(:nano, on_progress: :no)
      assert error.message =~ "option :on_progress must be a function of one argument"
    end
  end

  describe "verify" do
    setup %{hub: hub} do
      serve(hub, :nano)
      %{folder: fetch!(:nano)}
    end

    test "compares all checksums", %{folder: folder} do
      assert {:ok, files} = ModelFiles.verify(:nano)
      assert Map.new(files, &{&1.file, &1.bytes}) == sizes(folder)
      kinds = Map.new(files, &{&1.file, &1.checksum})
      assert %{"t3_nano_v1.safetensors" => :sha256, "conds.pt" => :sha256, "merges.txt" => :git_sha1} = kinds
    end

    test "finds one wrong byte, and a forced download repairs it", %{folder: folder} do
      spoil(blob(folder, "s3gen_meanflow.safetensors"))
      spoil(blob(folder, "merges.txt"))
      assert {:ok, ^folder} = ModelFiles.locate(:nano)
      assert {:error, %Error{reason: :model_load_failed} = error} = ModelFiles.verify(:nano)
      assert error.details.files == ["s3gen_meanflow.safetensors", "merges.txt"]
      assert error.message =~ "s3gen_meanflow.safetensors has the wrong checksum"
      assert String.ends_with?(error.message, "Run: mix chatterbex.models download nano --force")
      fetch!(:nano, force: true)
      assert {:ok, _files} = ModelFiles.verify(:nano)
    end

    test "checks the format in a folder without checksums", %{folder: folder, tmp_dir: dir} do
      own = Path.join(dir, "own")
      File.mkdir_p!(own)
      for name <- File.ls!(folder), do: File.cp!(Path.join(folder, name), Path.join(own, name))
      File.write!(Path.join(own, "conds.pt"), "PK" <> String.duplicate("x", 30) <> <<"PK", 5, 6>>)
      assert {:ok, files} = ModelFiles.verify(:nano, checkpoint: own)
      assert Enum.all?(files, &is_nil(&1.checksum))

      File.write!(Path.join(own, "conds.pt"), "PK cut off")
      File.write!(Path.join(own, "vocab.json"), "{")
      File.write!(Path.join(own, "ve.safetensors"), content("ve.safetensors") <> "x")
      assert {:error, %Error{reason: :model_load_failed} = error} = ModelFiles.verify(:nano, checkpoint: own)

      assert error.message =~
               "ve.safetensors is cut short, or too long, conds.pt is cut short, vocab.json is not JSON"

      assert error.message =~ "Check the folder given as :checkpoint, #{own}."
    end
  end

  describe "remove" do
    test "keeps files that another local model needs, and everything else in the cache", %{hub: hub} do
      for model <- [:english, :conversion, :nano], do: serve(hub, model)
      conversion = fetch!(:conversion)
      fetch!(:english)
      nano = fetch!(:nano)
      write_other = in_cache("models--someone--else/refs/main")
      File.mkdir_p!(Path.dirname(write_other))
      File.write!(write_other, "abc")

      assert {:ok, %{files: files, bytes: bytes}} = ModelFiles.remove(:english)

      assert Enum.sort(Enum.map(files, &Path.basename/1)) ==
               ~w(t3_cfg.safetensors tokenizer.json ve.safetensors)

      assert bytes == Enum.sum(for file <- files, do: byte_size(content(Path.basename(file), @base)))
      assert ModelFiles.locate(:conversion) == {:ok, conversion}
      assert {:ok, _files} = ModelFiles.verify(:conversion)
      assert {:error, %Error{reason: :model_files_missing}} = ModelFiles.locate(:english)

      assert {:ok, %{files: [_s3gen, _conds]}} = ModelFiles.remove(:conversion)
      refute File.exists?(in_cache("models--ResembleAI--chatterbox"))
      assert ModelFiles.locate(:nano) == {:ok, nano}
      assert File.read!(write_other) == "abc"
      assert {:ok, %{files: [], bytes: 0}} = ModelFiles.remove(:conversion)
    end

    test "removes all revisions", %{hub: hub} do
      serve(hub, :nano)
      old = fetch!(:nano)
      write(hub, @nano, "vocab.json", "{}")
      new = fetch!(:nano, force: true)
      assert {:ok, %{files: files}} = ModelFiles.remove("nano")
      assert length(files) == 18
      refute File.exists?(old) or File.exists?(new)
    end
  end

  test "list", %{hub: hub} do
    serve(hub, :conversion)
    folder = fetch!(:conversion)
    models = ModelFiles.list()
    assert length(models) == 12

    assert %{folder: ^folder, missing: [], files: ["s3gen.safetensors", "conds.pt"], bytes: bytes} =
             Enum.find(models, &(&1.model == :conversion))

    assert bytes == folder |> sizes() |> Map.values() |> Enum.sum()
    english = Enum.find(models, &(&1.model == :english))
    assert %{folder: nil, missing: ~w(t3_cfg.safetensors ve.safetensors tokenizer.json)} = english
    assert %{version: :v3, repositories: [@base]} = Enum.find(models, &(&1.model == :multilingual))
  end

  test "download! raises", %{hub: hub} do
    serve(hub, :conversion)

    said = capture_io(:stderr, fn -> assert ModelFiles.download!(:conversion) == fetch!(:conversion) end)
    assert said =~ "conds.pt: "

    System.put_env("HF_HUB_OFFLINE", "1")
    assert_raise Error, ~r/HF_HUB_OFFLINE/, fn -> ModelFiles.download!(:nano) end
  end

  test "wrong names, versions and folders are errors, not exceptions" do
    for name <- [{:turbo, 1}, 7, ["turbo"], %{}] do
      shown = inspect(name)
      assert {:error, %Error{reason: :unknown_model, message: message}} = ModelFiles.locate(name)
      assert message =~ "there is no model #{shown}. Those that have files are "
      assert {:error, %Error{reason: :unknown_model}} = ModelFiles.download(name)
      assert {:error, %Error{reason: :unknown_model}} = ModelFiles.verify(name)
      assert {:error, %Error{reason: :unknown_model}} = ModelFiles.remove(name)
      assert {:error, %Error{reason: :unknown_model}} = Chatterbex.Model.fetch(name)
    end

    assert {:error, %Error{reason: :invalid_option}} = ModelFiles.locate(:multilingual, version: {:v, 3})

    for options <- [[home: 5], [hmoe: "/srv"], %{home: "/srv"}] do
      assert {:error, %Error{reason: :invalid_option}} = ModelFiles.list(options)
      assert {:error, %Error{reason: :invalid_option}} = ModelFiles.locate(:turbo, options)
    end
  end
end
