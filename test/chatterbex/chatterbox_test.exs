defmodule Chatterbex.ChatterboxTest do
  @moduledoc """
  The Chatterbox models through the whole stack, on this machine's CPU, from synthetic checkpoints: T3 is small, S3Gen has
  its full size.
  """
  # Not async: a step of S3Gen holds the model thread, which all tests share, for a long time.
  use ExUnit.Case, async: false

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  @moduletag skip: no_chatterbox()
  @moduletag timeout: 600_000

  # Samples of one speech token, and the tokens of silence that :nano speaks at the end.
  @token 960
  @silence 3

  @text "Hello there."

  setup_all do
    folder = checkpoint(:nano)
    %{server: start_server(model: :nano, checkpoint: folder, device: "cpu"), folder: folder}
  end

  describe "nano" do
    @describetag :tmp_dir

    test "speaks, watermarks the audio, and writes it to a file", %{server: server, tmp_dir: dir} do
      assert {:ok, %Audio{sample_rate: 24_000, channels: 1, metadata: metadata} = audio} =
               Chatterbex.generate(server, @text, seed: 7, max_tokens: 8)

      assert %{model: :nano, seed: 7, tokens: tokens, watermarked: true, voice: "built-in"} = metadata
      assert tokens in 1..8
      assert samples(audio) == (tokens + @silence) * @token
      assert Audio.detect_watermark(audio) == {:ok, true}
      assert Audio.watermarked?(audio)
      refute Audio.watermarked?(%{audio | samples: noise(samples(audio))})
      assert marked?(server, audio)

      path = Path.join(dir, "hello.wav")
      assert :ok = Audio.write(audio, path)
      assert {:ok, read} = Audio.read(path)
      assert Audio.duration(read) == Audio.duration(audio)
      assert Audio.watermarked?(read)
    end

    test "speaks the same for the same seed, and differently for another", %{server: server} do
      [one, same, other] =
        for seed <- [1, 1, 2] do
          assert {:ok, audio} = Chatterbex.generate(server, @text, seed: seed, max_tokens: 8)
          audio.samples
        end

      assert one == same
      assert one != other
    end

    test "runs the flow with the requested number of steps", %{server: server} do
      [usual, same, rough] =
        for options <- [[], [flow_steps: 2, reference_seconds: 10], [flow_steps: 1]] do
          options = [seed: 7, max_tokens: 8] ++ options
          assert {:ok, audio} = Chatterbex.generate(server, @text, options)
          audio.samples
        end

      assert same == usual
      assert rough != usual
      assert byte_size(rough) == byte_size(usual)
    end

    test "reports text that was cut short", %{server: server} do
      # With random weights, speech never ends.
      assert {:ok, %Audio{metadata: metadata}} = Chatterbex.generate(server, @text, seed: 7, max_tokens: 5)
      assert %{tokens: 5, finish_reason: "limit", warnings: [warning]} = metadata
      assert warning == "piece 0 of the text was cut short at :max_tokens"
    end

    test "retries speech without an end with another seed", %{server: server} do
      # 99 tokens are all that a slow reader needs for this text.
      options = [seed: 3, retries: 1]
      assert {:ok, %Audio{metadata: metadata}} = Chatterbex.generate(server, "Hi!", options)
      assert %{retries: 1, finish_reason: "runaway", tokens: 99, seed: 3, warnings: [warning]} = metadata
      assert warning == "piece 0 of the text did not end by itself, and was cut"
    end

    test "speaks in chunks that are together as long as the whole", %{server: server} do
      options = [seed: 3, max_tokens: 16]
      assert {:ok, whole} = Chatterbex.generate(server, @text, options)
      chunks = server |> Chatterbex.stream(@text, [chunk_tokens: 8] ++ options) |> Enum.to_list()
      assert length(chunks) > 1
      assert chunks |> Enum.map(&samples/1) |> Enum.sum() == samples(whole)
      assert marked?(server, %{whole | samples: Enum.map_join(chunks, & &1.samples)})
      assert %{tokens: 16, seconds: %{first: first, total: total}} = List.last(chunks).metadata
      assert first < total
    end

    test "accepts its sounds", %{server: server} do
      assert {:ok, %Audio{}} = Chatterbex.generate(server, "[whispering] Well [laugh] hello.", max_tokens: 5)
    end

    test "reports its device and its memory", %{server: server, folder: folder} do
      assert {:ok, info} = Chatterbex.info(server: server)

      assert %{model: :nano, status: :ready, error: nil} = info

      assert %{requested: :cpu, actual: :cpu, reason: nil, warning: nil, proof: nil, limited: nil} =
               info.device

      assert info.precision == %{requested: "float32", t3: "float32", flow: "float32", verdict: nil}
      assert info.checkpoint == folder

      parts = ~w(t3 s3gen ve analysis)a
      assert for(part <- parts, do: info.components[part]) == List.duplicate("cpu", 4)
      assert Enum.all?(parts, &(info.memory[&1] > 0))
      # S3Gen has only one size: 583 MB of weights, plus what the CPU's pass packs.
      assert_in_delta info.memory.s3gen, 1_048_000_000, 20_000_000
      assert info.versions["torch"] =~ ~r/^\d+\.\d+/

      assert Enum.all?(~w(packages files t3 s3gen voices text watermark device)a, &is_float(info.load[&1]))
    end

    test "measures which precision its weights allow, and saves the verdict", %{folder: folder} do
      {:ok, server} = Chatterbex.start_link(model: :nano, checkpoint: folder, device: :cpu, precision: :auto)
      assert :ok = Chatterbex.await_ready(server: server)
      assert {:ok, %{precision: precision}} = Chatterbex.info(server: server)
      assert %{requested: "auto", t3: t3, flow: flow, verdict: %{t3: measured} = verdict} = precision
      assert %{precision: "int8", kl_divergence: divergence, changed_tokens: changed} = measured
      assert divergence > 0 and changed >= 0
      assert t3 == if(measured.passed, do: "int8", else: "float32")
      assert flow == if(verdict.flow && verdict.flow.passed, do: "bfloat16", else: "float32")

      kept = Chatterbex.Precision.newest(Chatterbex.Python.home(), :nano, folder)
      assert Map.take(kept, [:t3, :flow, :limits]) == Map.take(verdict, [:t3, :flow, :limits])
      :ok = Chatterbex.stop(server: server)
    end

    test "speaks for several callers in parallel as it does for each alone", %{folder: folder} do
      # In its own VM, because all servers of a VM share the threads.
      code = """
      {:ok, _apps} = Application.ensure_all_started(:chatterbex)
      {:ok, server} = Chatterbex.start_link(model: :nano, checkpoint: #{inspect(folder)}, device: "cpu", threads: 2)

      speak = fn seed ->
        {:ok, audio} = Chatterbex.generate(server, "Hello there.", seed: seed, max_tokens: 6 * seed)
        for <<sample::float-32-little <- audio.samples>>, do: sample
      end

      alone = Enum.map(1..4, speak)
      together = 1..4 |> Enum.map(&Task.async(fn -> speak.(&1) end)) |> Task.await_many(300_000)

      for {one, other} <- Enum.zip(alone, together) do
        true = length(one) == length(other)
        true = one |> Enum.zip(other) |> Enum.all?(fn {a, b} -> abs(a - b) < 1.0e-4 end)
      end

      IO.puts("the same")
      """

      {output, status} = elixir(code)
      assert status == 0, output
      assert output =~ "the same"
    end

    test "a cancelled request leaves the model free", %{server: server} do
      assert {:error, %Error{reason: :timeout}} = Chatterbex.generate(server, @text, timeout: 1)
      await_idle(server)
      assert {:ok, %Audio{}} = Chatterbex.generate(server, @text, max_tokens: 5)
    end
  end

  describe "the other models" do
    test "english speaks, and has no sounds" do
      server = start_server(model: :english, checkpoint: checkpoint(:english), device: "cpu")
      assert {:ok, audio} = Chatterbex.generate(server, @text, seed: 7, max_tokens: 6, exaggeration: 0.9)
      assert samples(audio) > 0
      assert rem(samples(audio), @token) == 0
      assert marked?(server, audio)

      assert {:error, %Error{reason: :not_supported, message: message}} =
               Chatterbex.generate(server, "Ha [laugh] ha.")

      assert message =~ "[laugh]"
      assert {:error, %Error{reason: :not_supported}} = Chatterbex.generate(server, @text, top_k: 5)
    end

    @tag :tmp_dir
    test "english speaks with the distilled flow", %{tmp_dir: dir} do
      for name <- File.ls!(checkpoint(:english)), name != "s3gen.safetensors" do
        File.ln_s!(Path.join(checkpoint(:english), name), Path.join(dir, name))
      end

      file = "s3gen_meanflow.safetensors"
      options = [model: :english, checkpoint: dir, device: "cpu", flow: :meanflow]
      refused = start_supervised!(Supervisor.child_spec({Chatterbex, options}, id: :refused))
      assert {:error, %Error{reason: :model_files_missing} = error} = Chatterbex.generate(refused, @text)
      assert error.message =~ "mix chatterbex.models download english --flow meanflow"

      File.ln_s!(Path.join(checkpoint(:nano), file), Path.join(dir, file))
      server = start_server(options)
      assert {:ok, audio} = Chatterbex.generate(server, @text, seed: 7, max_tokens: 6)
      assert samples(audio) == audio.metadata.tokens * @token
    end

    test "multilingual speaks the requested language, and requires one" do
      server = start_server(model: :multilingual, checkpoint: checkpoint(:multilingual), device: "cpu")

      assert {:error, %Error{reason: :unknown_language, message: message}} =
               Chatterbex.generate(server, @text)

      assert message =~ "language: \"fr\""
      assert {:error, %Error{reason: :unknown_language}} = Chatterbex.generate(server, @text, language: "xx")

      assert {:ok, audio} =
               Chatterbex.generate(server, "Guten Morgen.", language: "de", seed: 1, max_tokens: 6)

      assert samples(audio) > 0
      assert marked?(server, audio)
    end
  end

  describe "damaged files" do
    @describetag :tmp_dir

    setup %{tmp_dir: dir} do
      {output, status} =
        System.cmd(test_python(), ["-m", "synthetic.hostile", "--model", "nano", "--dir", dir],
          cd: python_tests(),
          stderr_to_stdout: true
        )

      assert status == 0, output
      :ok
    end

    test "each give a clear error; the server survives, and loads a good file later", %{tmp_dir: dir} do
      for {name, reason, said} <- [
            {"cut", :model_load_failed, "ve.safetensors"},
            {"shape", :model_load_failed, "proj.bias [7] instead of [256]"},
            {"nan", :model_load_failed, "proj.bias"},
            {"loop", :model_files_missing, "vocab.json"},
            {"pickle", :model_load_failed, "conds.pt was refused"}
          ] do
        options = [model: :nano, checkpoint: Path.join(dir, name), device: "cpu"]
        server = start_supervised!({Chatterbex, options}, id: name)
        assert {:error, %Error{reason: ^reason, message: message}} = Chatterbex.await_ready(server: server)
        assert message =~ said
        assert {:error, %Error{reason: ^reason}} = Chatterbex.generate(server, @text)
        assert {:ok, %{status: :failed, error: %Error{reason: ^reason}}} = Chatterbex.info(server: server)
      end

      refute File.exists?(Path.join(dir, "ran"))
      good = start_server(model: :nano, checkpoint: checkpoint(:nano), device: "cpu")
      assert {:ok, %Audio{}} = Chatterbex.generate(good, @text, max_tokens: 5)
    end

    @tag skip: System.cmd("id", ["-u"]) == {"0\n", 0} && "root may read every folder"
    test "so does an unreadable folder", %{tmp_dir: dir} do
      folder = Path.join(dir, "closed")
      File.mkdir!(folder)
      File.chmod!(folder, 0)
      server = start_supervised!({Chatterbex, model: :nano, checkpoint: folder, device: "cpu"})

      assert {:error, %Error{reason: :model_files_missing, message: message}} =
               Chatterbex.await_ready(server: server)

      File.chmod!(folder, 0o755)
      assert message =~ folder
    end
  end

  defp samples(audio), do: div(byte_size(audio.samples), 4)

  defp noise(samples), do: for(n <- 1..samples, into: "", do: <<:math.sin(n * n) / 4::float-32-little>>)

  defp marked?(server, audio) do
    arguments = %{"samples" => {:bytes, audio.samples}, "sample_rate" => audio.sample_rate}
    call_model(server, "watermarked", arguments)["watermarked"]
  end
end
