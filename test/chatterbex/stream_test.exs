defmodule Chatterbex.StreamTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp

  alias Chatterbex.{Audio, Error}

  # What the fake model says for texts, joined; pauses are left out.
  defp said(chunks), do: chunks |> Enum.reject(& &1.metadata[:pause]) |> Enum.map_join(& &1.samples)

  # A text for the fake model: each sentence takes the given number of steps.
  defp sentences(numbers, words \\ ""), do: Enum.map_join(numbers, " ", &"Sentence number #{&1} #{words}.")

  # Endless sentences, counted as they are pulled.
  defp endless(counter) do
    Stream.repeatedly(fn ->
      :counters.add(counter, 1, 1)
      "Sentence number #{:counters.get(counter, 1)}. "
    end)
  end

  describe "a stream" do
    test "returns chunks in order, with the text and number of their piece" do
      server = start_fake(max_batch: 3)
      chunks = server |> Chatterbex.stream("First one steps:3. Second one. Third.") |> Enum.to_list()

      assert said(chunks) == echo("First one steps:3.") <> echo("Second one.") <> echo("Third.")
      spoken = Enum.reject(chunks, & &1.metadata[:pause])
      assert Enum.map(spoken, & &1.metadata.piece) == [0, 0, 0, 1, 2]
      assert List.last(spoken).metadata.text == "Third."

      assert for(%{metadata: %{pause: ms}} = chunk <- chunks, do: {ms, Audio.duration(chunk)}) == [
               {250, 0.25},
               {250, 0.25}
             ]
    end

    test "has the audio of the whole text" do
      server = start_fake()
      text = "One. Two, [pause 1s] three.\n\nFour."
      options = [seed: 4, sentence_pause: 100, paragraph_pause: 500]
      streamed = server |> Chatterbex.stream(text, options) |> Enum.map_join(& &1.samples)
      pause = fn ms -> :binary.copy(<<0::32>>, 24 * ms) end

      expected = [
        echo("One."),
        pause.(100),
        echo("Two,"),
        pause.(1000),
        echo("three."),
        pause.(500),
        echo("Four.")
      ]

      assert streamed == IO.iodata_to_binary(expected)

      # Sentences that are spoken as one piece get no pause between them.
      assert {:ok, whole} = Chatterbex.generate(server, text, options)
      expected = [echo("One. Two,"), pause.(1000), echo("three."), pause.(500), echo("Four.")]
      assert whole.samples == IO.iodata_to_binary(expected)
      assert whole.metadata.pieces == 3
    end

    test "is lazy: it requests nothing before it is read, and little ahead" do
      server = start_fake()
      counter = :counters.new(1, [])
      stream = Chatterbex.stream(server, endless(counter), ahead: 2)
      assert :counters.get(counter, 1) == 0
      assert [chunk] = Enum.take(stream, 1)
      assert chunk.metadata.text == "Sentence number 1."
      # Two sentences ahead, and the beginning of the next, which shows that they are complete.
      assert :counters.get(counter, 1) <= 4
      await_idle(server)
    end

    test "of an endless text with a slow consumer bounds the sentences ahead and the memory" do
      server = start_fake(max_batch: 4)
      counter = :counters.new(1, [])

      {most, _memory} =
        server
        |> Chatterbex.stream(endless(counter), ahead: 3)
        |> Stream.reject(& &1.metadata[:pause])
        |> Stream.take(300)
        |> Enum.reduce({0, 0}, fn chunk, {most, _} ->
          # The consumer is slower than the model: it waits until the model is idle.
          if rem(chunk.metadata.piece, 50) == 0, do: await_idle(server)
          {_, unread} = Process.info(self(), :message_queue_len)
          # Here a piece is one chunk and its end.
          assert unread <= 2 * 3
          {max(most, :counters.get(counter, 1) - chunk.metadata.piece), unread}
        end)

      assert most <= 5
      assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
    end

    test "requests no more ahead if one fragment holds many sentences" do
      text = sentences(1..200)

      for source <- [text, [text], ["#{text} ", text]] do
        server = start_fake(max_batch: 4)
        spoken = server |> Chatterbex.stream(source, ahead: 3) |> Stream.reject(& &1.metadata[:pause])

        pieces =
          Enum.map(spoken, fn chunk ->
            if rem(chunk.metadata.piece, 50) == 0, do: await_idle(server)
            {_, unread} = Process.info(self(), :message_queue_len)
            assert unread <= 2 * 3
            chunk.metadata.piece
          end)

        assert pieces == Enum.to_list(0..(length(pieces) - 1))
        assert length(pieces) in [200, 400]
      end
    end

    test "accepts a language model's fragments, cut anywhere" do
      server = start_fake()
      fragments = ["Hel", "lo, Dr", ". Ray", "! How", " are", " now", " you?"]
      chunks = server |> Chatterbex.stream(fragments) |> Enum.reject(& &1.metadata[:pause])
      assert Enum.map(chunks, & &1.metadata.text) == ["Hello, Dr. Ray!", "How are now you?"]
    end

    test "speaks a finished sentence while its source pauses" do
      server = start_fake()
      test = self()

      # The source only continues after the audio of the first sentence arrived.
      source =
        Stream.map(["Hello, Ray! How", " are", " you?"], fn
          " are" ->
            send(test, {:paused, self()})
            receive(do: (:go_on -> " are"))

          fragment ->
            fragment
        end)

      texts =
        server
        |> Chatterbex.stream(source, timeout: 5_000)
        |> Stream.reject(& &1.metadata[:pause])
        |> Enum.map(fn chunk ->
          if chunk.metadata.piece == 0 do
            assert_receive {:paused, puller}, 5_000
            send(puller, :go_on)
          end

          chunk.metadata.text
        end)

      assert texts == ["Hello, Ray!", "How are you?"]
    end

    test "pulls its source in a process that knows its callers" do
      server = start_fake()
      test = self()
      source = Stream.map(["One."], &(send(test, {:callers, self(), Process.get(:"$callers")}) && &1))
      server |> Chatterbex.stream(source) |> Stream.run()
      assert_received {:callers, puller, [^test | _]}
      assert puller != test
    end

    test "fails if something ends the source's process" do
      server = start_fake()
      source = Stream.map(["One. ", "Two."], &if(&1 == "Two.", do: Process.exit(self(), :kill), else: &1))
      assert catch_exit(server |> Chatterbex.stream(source) |> Stream.run()) == :killed
      assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]
      await_idle(server)
    end

    test "raises an error after the chunks before it" do
      server = start_fake()
      test = self()

      assert_raise Error, "told to refuse", fn ->
        server |> Chatterbex.stream("One. Please refuse this. Three.") |> Enum.each(&send(test, {:chunk, &1}))
      end

      assert_received {:chunk, %Audio{metadata: %{text: "One."}}}
      await_idle(server)
      assert_received {:chunk, %Audio{metadata: %{pause: 250}}}
      assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]

      assert_raise Error, ~r/the parts of a text must be strings, got 7/, fn ->
        server |> Chatterbex.stream(["One. Two", 7]) |> Enum.each(&send(test, {:chunk, &1}))
      end

      assert_received {:chunk, %Audio{metadata: %{text: "One."}}}

      assert_raise RuntimeError, "the source is broken", fn ->
        source = Stream.map(["One. Two. ", "x"], &if(&1 == "x", do: raise("the source is broken"), else: &1))
        server |> Chatterbex.stream(source) |> Enum.each(&send(test, {:chunk, &1}))
      end

      assert_received {:chunk, %Audio{metadata: %{text: "One."}}}
      await_idle(server)
    end

    test "closes its source when it ends, is halted, or fails" do
      server = start_fake()
      test = self()

      source = fn fragments ->
        Stream.resource(
          fn -> fragments end,
          fn
            [] -> {:halt, []}
            [fragment | rest] -> {[fragment], rest}
          end,
          fn _rest -> send(test, :closed) end
        )
      end

      server |> Chatterbex.stream(source.(["One. ", "Two."])) |> Stream.run()
      assert_received :closed
      server |> Chatterbex.stream(source.(["One. ", "Two. ", "Three. ", "Four. "]), ahead: 1) |> Enum.take(1)
      assert_received :closed
      catch_error(server |> Chatterbex.stream(source.(["Please fail. ", "Two. ", "Three. "])) |> Stream.run())
      # It may have been pulled at that moment.
      assert_receive :closed, 5_000
      refute_received :closed
    end

    test "closes its source when its consumer is killed, once the source returns" do
      server = start_fake()
      {source, await_pulled} = blocking_source()
      taker = spawn(fn -> server |> Chatterbex.stream(source) |> Stream.run() end)
      puller = await_pulled.()
      Process.exit(taker, :kill)
      send(puller, :go_on)
      assert_receive :closed, 5_000
      await_idle(server)
    end

    test "halts even if its source is blocked" do
      server = start_fake()
      {source, await_pulled} = blocking_source()
      assert [_chunk] = server |> Chatterbex.stream(source) |> Enum.take(1)
      puller = await_pulled.()
      refute_received :closed
      send(puller, :go_on)
      assert_receive :closed, 5_000
      assert Process.info(self(), [:message_queue_len, :monitors]) == [message_queue_len: 0, monitors: []]
    end

    # A sentence, and then nothing until its process is told to continue. The test gets a message when it waits and when
    # it is closed.
    defp blocking_source do
      test = self()

      source =
        Stream.resource(
          fn -> ["One. Two"] end,
          fn
            [fragment] ->
              {[fragment], []}

            [] ->
              send(test, {:pulled, self()})
              receive(do: (:go_on -> {["."], []}))
          end,
          fn _rest -> send(test, :closed) end
        )

      {source,
       fn ->
         assert_receive {:pulled, puller}, 5_000
         puller
       end}
    end

    test "refuses bad options and texts at once" do
      for {text, options, reason} <- [
            {"", [], :invalid_text},
            {nil, [], :invalid_text},
            {42, [], :invalid_text},
            {"Hello.", [sede: 1], :invalid_option},
            {"Hello.", [ahead: 0], :invalid_option},
            {"Hello.", [chunk_tokens: 0], :invalid_option}
          ] do
        assert %Error{reason: ^reason} = catch_error(Chatterbex.stream(text, options))
      end

      server = start_fake()

      assert %Error{reason: :not_supported} =
               catch_error(Enum.to_list(Chatterbex.stream(server, "Hi.", chunk_tokens: 5)))
    end

    test "that waits too long for a chunk ends with an error" do
      server = start_fake()
      error = catch_error(Enum.to_list(Chatterbex.stream(server, "One. Now hold. Three.", timeout: 100)))

      assert %Error{reason: :timeout, message: "no audio within 100 ms after 2 chunks. Raise :timeout."} =
               error

      await_idle(server)
    end

    test "and a request end at their deadline" do
      server = start_fake()
      soon = fn -> DateTime.add(DateTime.utc_now(), 100, :millisecond) end

      assert %Error{reason: :timeout} =
               catch_error(Enum.to_list(Chatterbex.stream(server, "Hold: hold.", deadline: soon.())))

      assert {:error, %Error{reason: :timeout}} =
               Chatterbex.generate(server, "Please hold", deadline: soon.())

      past = ~U[2001-01-01 00:00:00Z]

      assert {:error, %Error{reason: :timeout, message: message}} =
               Chatterbex.generate(server, "Hello", deadline: past)

      assert message == "the deadline 2001-01-01 00:00:00Z has passed. Give a later :deadline."
      await_idle(server)
    end

    test "a deadline that comes before :timeout says so" do
      server = start_fake()
      soon = fn -> DateTime.add(DateTime.utc_now(), 100, :millisecond) end

      assert {:error, %Error{reason: :timeout} = error} =
               Chatterbex.generate(server, "hold", deadline: soon.())

      assert error.message =~
               ~r/^the deadline .+ has passed: the request was still being spoken. Give a later :deadline.$/

      error = catch_error(server |> Chatterbex.stream("hold", deadline: soon.()) |> Stream.run())
      assert %Error{reason: :timeout, message: message} = error
      assert message =~ ~r/^the deadline .+ has passed. Give a later :deadline.$/

      # Also while it waits for text.
      source = Stream.repeatedly(fn -> receive(do: (:never -> "")) end)
      error = catch_error(server |> Chatterbex.stream(source, deadline: soon.()) |> Stream.run())
      assert %Error{reason: :timeout, message: "the deadline " <> _} = error
      await_idle(server)
    end

    test "a deadline beyond the range of a timer means no deadline" do
      server = start_fake()
      distant = [timeout: :infinity, deadline: ~U[9999-12-31 23:59:59Z]]
      assert {:ok, _audio} = Chatterbex.generate(server, "Hello.", distant)
      assert [_chunk] = server |> Chatterbex.stream("Hello.", distant) |> Enum.to_list()
    end

    test "returns the silence of a text of pauses, as generate does" do
      server = start_fake()
      text = "[pause 800ms] [pause 200ms]"
      assert {:ok, %Audio{samples: samples, sample_rate: 24_000} = audio} = Chatterbex.generate(server, text)
      assert samples == :binary.copy(<<0::32>>, 24_000)
      assert audio.metadata == %{model: :fake, pieces: 0}
      assert server |> Chatterbex.stream(text) |> Enum.map_join(& &1.samples) == samples
    end

    test "reports its progress" do
      server = start_fake()
      test = self()
      text = sentences(1..3)
      {:ok, audio} = Chatterbex.generate(server, text, progress: &send(test, {:whole, &1}))
      total = String.length(text)
      assert_received {:whole, %{pieces: 1, characters: ^total, total: ^total, seconds: seconds}}
      assert_in_delta seconds, Audio.duration(audio), 1.0e-9

      server |> Chatterbex.stream(text, progress: &send(test, {:stream, &1})) |> Stream.run()
      for pieces <- 1..3, do: assert_received({:stream, %{pieces: ^pieces, total: ^total}})

      server |> Chatterbex.stream([text], progress: &send(test, {:source, &1})) |> Stream.run()
      assert_received {:source, %{pieces: 3, total: nil}}
    end
  end

  describe "an abandoned stream" do
    test "is cancelled within a step when it is halted" do
      server = start_fake()
      assert [_chunk] = server |> Chatterbex.stream("One. Two hold. Three hold.", ahead: 3) |> Enum.take(1)
      await_idle(server)
      assert call_model(server, "held") == %{"held" => 0}
    end

    test "is cancelled when its consumer ends" do
      server = start_fake()
      taker = spawn(fn -> server |> Chatterbex.stream("One. Two hold.") |> Stream.run() end)
      await_held(server, 1)
      Process.exit(taker, :kill)
      await_idle(server)
      assert call_model(server, "held") == %{"held" => 0}
    end
  end

  describe "a stream to a process" do
    test "sends its chunks and says when it is done" do
      server = start_fake()
      {:ok, ref} = Chatterbex.stream_to("One. Two.", self(), server: server)
      assert_receive {:chatterbex, ^ref, {:chunk, %Audio{metadata: %{text: "One."}}}}, 5_000
      assert_receive {:chatterbex, ^ref, {:chunk, %Audio{metadata: %{pause: 250}}}}, 5_000
      assert_receive {:chatterbex, ^ref, {:chunk, %Audio{metadata: %{text: "Two."}}}}, 5_000
      assert_receive {:chatterbex, ^ref, :done}, 5_000
      assert Chatterbex.cancel(ref) == :ok
      refute_received {:chatterbex, ^ref, _more}
    end

    test "sends an error as its last message" do
      server = start_fake()
      {:ok, ref} = Chatterbex.stream_to("One. Please fail. Three.", self(), server: server)
      assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :generation_failed}}}, 5_000
      refute_receive {:chatterbex, ^ref, :done}, 50

      source = Stream.map(1..3, fn _n -> raise "no text today" end)
      {:ok, ref} = Chatterbex.stream_to(source, self(), server: server)
      assert_receive {:chatterbex, ^ref, {:error, %Error{message: message}}}, 5_000
      assert message == "the source of the text or the function :progress failed: no text today"
    end

    test "sends its last message, whatever the source and :progress do" do
      server = start_fake()
      deaf = spawn_link(fn -> receive(do: (:never -> :ok)) end)
      stop = fn how -> Stream.map(["One. Two.", ""], &if(&1 == "", do: how.(), else: &1)) end

      for {how, said} <- [
            {fn -> GenServer.call(deaf, :anything, 1) end, "exit: exited in: GenServer.call"},
            {fn -> throw(:a_ball) end, "it threw :a_ball"},
            {fn -> exit(:enough) end, "exit: :enough"},
            {fn -> Process.exit(self(), :kill) end, "exit: killed"}
          ],
          {text, options} <- [{stop.(how), []}, {"One. Two.", [progress: fn _told -> how.() end]}],
          # A function that kills the sender itself cannot be helped.
          not (said == "exit: killed" and is_binary(text)) do
        {:ok, ref} = Chatterbex.stream_to(text, self(), [server: server] ++ options)
        assert_receive {:chatterbex, ^ref, {:chunk, %Audio{metadata: %{text: "One."}}}}, 5_000
        assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :generation_failed} = error}}, 5_000
        assert error.message =~ "the source of the text or the function :progress failed: #{said}"
      end

      await_idle(server)
    end

    test "is cancelled by its reference" do
      server = start_fake()
      {:ok, ref} = Chatterbex.stream_to("Please hold.", self(), server: server)
      await_held(server, 1)
      assert Chatterbex.cancel(ref) == :ok
      assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :cancelled}}}
      await_idle(server)
      assert call_model(server, "held") == %{"held" => 0}
    end

    test "closes its source when it is cancelled, and when its listener ends" do
      server = start_fake()
      {source, await_pulled} = blocking_source()
      {:ok, ref} = Chatterbex.stream_to(source, self(), server: server)
      puller = await_pulled.()
      assert :ok = Chatterbex.cancel(ref)
      send(puller, :go_on)
      assert_receive :closed, 5_000

      listener =
        spawn(fn ->
          {:ok, _ref} = Chatterbex.stream_to(source, self(), server: server)
          receive(do: (:never -> :ok))
        end)

      puller = await_pulled.()
      Process.exit(listener, :kill)
      # The sender ends even though the source is blocked.
      await_idle(server)
      send(puller, :go_on)
      assert_receive :closed, 5_000
    end

    test "kills a source that is blocked for good" do
      server = start_fake()
      {source, await_pulled} = blocking_source()
      {:ok, ref} = Chatterbex.stream_to(source, self(), server: server)
      puller = await_pulled.()
      monitor = Process.monitor(puller)
      assert :ok = Chatterbex.cancel(ref)
      assert_receive {:DOWN, ^monitor, :process, ^puller, :killed}, 30_000
    end

    test "sends its last message when its supervisor stops it, whatever it is waiting for" do
      server = start_fake()
      {source, await_pulled} = blocking_source()

      # It waits for audio, for text, and for chunks to be acknowledged.
      for {text, options} <- [{"Please hold.", []}, {source, []}, {"One. Two. Three.", [max_unacked: 1]}] do
        {:ok, ref} = Chatterbex.stream_to(text, self(), [server: server] ++ options)

        cond do
          text == source -> await_pulled.()
          options == [] -> await_held(server, 1)
          true -> assert_receive {:chatterbex, ^ref, {:chunk, _audio}}, 5_000
        end

        [{sender, _listener}] = Registry.lookup(Chatterbex.Senders, ref)
        assert :ok = Task.Supervisor.terminate_child(Chatterbex.SenderSupervisor, sender)
        assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :cancelled, message: message}}}, 5_000
        assert message == "the application :chatterbex is stopping"
      end

      await_idle(server)
    end

    test "survives processes that its :progress function links to it" do
      server = start_fake()
      test = self()

      progress = fn _told ->
        {pid, monitor} = spawn_monitor(fn -> receive(do: (:go -> exit(:broken))) end)
        Process.link(pid)
        send(pid, :go)
        receive(do: ({:DOWN, ^monitor, :process, ^pid, :broken} -> send(test, :broken)))
      end

      {:ok, ref} = Chatterbex.stream_to("One. Two.", self(), server: server, progress: progress)
      assert_receive {:chatterbex, ^ref, :done}, 5_000
      assert_received :broken
    end

    test "ends with its listener" do
      server = start_fake()
      test = self()

      listener =
        spawn(fn ->
          {:ok, _ref} = Chatterbex.stream_to("Please hold.", self(), server: server)
          send(test, :begun)
          receive(do: (:never -> :ok))
        end)

      assert_receive :begun, 5_000
      await_held(server, 1)
      Process.exit(listener, :kill)
      await_idle(server)
      assert call_model(server, "held") == %{"held" => 0}
    end

    test "waits for a listener that is behind" do
      server = start_fake()
      counter = :counters.new(1, [])
      test = self()

      listener =
        spawn(fn ->
          {:ok, ref} = Chatterbex.stream_to(endless(counter), self(), server: server)
          send(test, {:ref, ref})
          receive(do: (:never -> :ok))
        end)

      assert_receive {:ref, ref}, 5_000
      # It reads nothing: the stream continues until that many messages wait, and then stops.
      await(fn -> match?({_, n} when n > 64, Process.info(listener, :message_queue_len)) end)
      await_idle(server)
      pulled = :counters.get(counter, 1)
      assert pulled < 64
      assert Process.info(listener, :message_queue_len) == {:message_queue_len, 65}
      assert :ok = Chatterbex.cancel(ref)
      Process.exit(listener, :kill)
    end

    test "waits until its chunks are acknowledged" do
      server = start_fake()
      counter = :counters.new(1, [])
      options = [server: server, max_unacked: 3, sentence_pause: 0]
      {:ok, ref} = Chatterbex.stream_to(endless(counter), self(), options)

      next = fn ->
        assert_receive {:chatterbex, ^ref, {:chunk, audio}}, 5_000
        audio.metadata.piece
      end

      assert for(_n <- 1..3, do: next.()) == [0, 1, 2]
      await_idle(server)
      pulled = :counters.get(counter, 1)
      assert pulled < 10
      refute_received {:chatterbex, ^ref, _more}

      assert :ok = Chatterbex.ack(ref)
      assert next.() == 3
      # An acknowledgement of more than was sent does not count for later chunks.
      assert :ok = Chatterbex.ack(ref, 1_000)
      assert for(_n <- 1..3, do: next.()) == [4, 5, 6]
      await_idle(server)
      refute_received {:chatterbex, ^ref, _more}

      assert Chatterbex.cancel(ref) == :ok
      assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :cancelled}}}
      assert Chatterbex.ack(ref) == :ok
    end

    test "without acknowledgements ends with its listener" do
      server = start_fake()
      test = self()
      options = [server: server, max_unacked: 1]

      listener =
        spawn(fn ->
          {:ok, ref} = Chatterbex.stream_to(endless(:counters.new(1, [])), self(), options)
          receive(do: ({:chatterbex, ^ref, {:chunk, _audio}} -> send(test, {:heard_nothing, ref})))
          receive(do: (:never -> :ok))
        end)

      assert_receive {:heard_nothing, ref}, 5_000
      [{sender, ^listener}] = Registry.lookup(Chatterbex.Senders, ref)
      monitor = Process.monitor(sender)
      Process.exit(listener, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^sender, _reason}, 5_000
      await_idle(server)
    end

    test "refuses invalid values of :max_unacked, and stream/2 refuses the option" do
      assert {:error, %Error{reason: :invalid_option}} = Chatterbex.stream_to("One.", self(), max_unacked: 0)
      assert_raise Error, ~r/unknown option :max_unacked/, fn -> Chatterbex.stream("One.", max_unacked: 3) end
    end

    test "ends when the server does" do
      {:ok, server} = Chatterbex.start_link(model: :fake)
      {:ok, ref} = Chatterbex.stream_to("Please hold.", self(), server: server)
      await_held(server, 1)
      :ok = Chatterbex.stop(server: server)
      assert_receive {:chatterbex, ^ref, {:error, %Error{reason: :cancelled}}}, 5_000
    end
  end

  describe "turns" do
    test "a short request is spoken during a long one" do
      server = start_fake(max_batch: 1)
      # The book's first piece holds the only place; the others wait.
      text = "Hold, hold.\n\n" <> Enum.map_join(1..10, "\n\n", &"Paragraph #{&1}.")

      book = Task.async(fn -> Chatterbex.generate(server, text) end)
      await_held(server, 1)
      short = Task.async(fn -> Chatterbex.generate(server, "Short.") end)
      await(fn -> match?({:ok, %{queue: %{waiting: 1}}}, Chatterbex.info(server: server)) end)
      call_model(server, "release")
      assert {:ok, %Audio{samples: samples}} = Task.await(short)
      assert samples == echo("Short.")
      assert {:ok, _audio} = Task.await(book, 30_000)
      assert %{"spoken" => ["Hold, hold.", "Short.", "Paragraph 1." | rest]} = call_model(server, "spoken")
      assert length(rest) == 9
    end

    test "a higher priority goes first", context do
      server = start_fake(max_batch: 1)
      test = self()

      :telemetry.attach_many(
        context.test,
        [[:chatterbex, :queue, :wait]],
        fn _event, _measurements, metadata, _config ->
          if metadata.server == server, do: send(test, {:started, metadata.priority})
        end,
        nil
      )

      on_exit(fn -> :telemetry.detach(context.test) end)
      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)

      tasks =
        for {priority, n} <- Enum.with_index([:low, :normal, :high], 1) do
          task = Task.async(fn -> Chatterbex.generate(server, "A #{priority} one", priority: priority) end)
          await(fn -> match?({:ok, %{queue: %{waiting: ^n}}}, Chatterbex.info(server: server)) end)
          task
        end

      call_model(server, "release")
      Task.await_many([held | tasks])
      started = Enum.map(1..4, fn _n -> receive(do: ({:started, priority} -> priority)) end)
      assert started == [:normal, :high, :normal, :low]
    end

    test "with ten minutes being spoken, a short request has its first audio within three steps" do
      server = start_server()

      book =
        String.duplicate(
          "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. ",
          130
        )

      test = self()

      reader =
        spawn_link(fn ->
          for chunk <- Chatterbex.stream(server, book), do: send(test, {:book, Audio.duration(chunk)})
        end)

      assert_receive {:book, _seconds}, 10_000
      flush_book()
      assert [_chunk] = server |> Chatterbex.stream("A short one.") |> Enum.take(1)
      # A step of the built-in voice speaks one sentence of one request.
      assert flush_book() <= 3
      Process.unlink(reader)
      Process.exit(reader, :kill)
      await_idle(server)
    end

    # How many sentences of the book have come; its pauses are not counted.
    defp flush_book(count \\ 0) do
      receive do
        {:book, seconds} -> flush_book(if(seconds > 0.5, do: count + 1, else: count))
      after
        0 -> count
      end
    end

    test "streams that are being taken are open, and bounded" do
      server = start_fake(max_batch: 1, max_queue: 1)
      test = self()

      takers =
        for _n <- 1..2 do
          spawn_link(fn ->
            for chunk <- Chatterbex.stream(server, "One. Two. Three. Four.", ahead: 1) do
              if chunk.metadata[:piece] == 0 and not is_map_key(chunk.metadata, :pause) do
                send(test, {:begun, self()})
                receive(do: (:go_on -> :ok))
              end
            end

            send(test, {:done, self()})
          end)
        end

      # Neither is waiting and neither occupies the model: their consumers are slow.
      for taker <- takers, do: assert_receive({:begun, ^taker}, 5_000)
      await_idle(server)
      assert {:ok, %{queue: %{open: 2, waiting: 0, running: 0}}} = Chatterbex.info(server: server)

      assert {:error, %Error{reason: :overloaded, message: message}} = Chatterbex.generate(server, "One more")
      assert message =~ "is full: 2 requests are open, and 2 may be (:max_queue is 1)."

      for taker <- takers, do: send(taker, :go_on)
      for taker <- takers, do: assert_receive({:done, ^taker}, 5_000)
      assert {:ok, _audio} = Chatterbex.generate(server, "One more")
    end

    test "a long text takes one place in the queue" do
      server = start_fake(max_batch: 1, max_queue: 1)
      held = Task.async(fn -> Chatterbex.generate(server, "hold") end)
      await_held(server, 1)

      long =
        Task.async(fn -> Chatterbex.generate(server, Enum.map_join(1..20, "\n\n", &"Paragraph #{&1}.")) end)

      await(fn -> match?({:ok, %{queue: %{waiting: 1}}}, Chatterbex.info(server: server)) end)
      assert {:error, %Error{reason: :overloaded}} = Chatterbex.generate(server, "One more")
      call_model(server, "release")
      assert {:ok, _audio} = Task.await(held)
      assert {:ok, %Audio{metadata: %{pieces: 20}}} = Task.await(long, 10_000)
    end
  end
end
