defmodule Chatterbex.ApiTest do
  use ExUnit.Case, async: true

  import Chatterbex.TestHelp

  alias Chatterbex.{DefaultServer, Error}

  # No server runs as any of these; each is found by its name.
  @servers [
    MyApp.NoSuchServer,
    {MyApp.NoSuchServer, :nonode@nohost},
    {:via, Registry, {Chatterbex.Senders, :no_such_server}},
    {:global, :no_such_server}
  ]

  describe "a server and a text are never confused" do
    test "in generate" do
      for server <- @servers,
          answer <- [
            Chatterbex.generate("Hello.", server: server),
            Chatterbex.generate(server, "Hello."),
            Chatterbex.generate(server, "Hello.", seed: 1)
          ] do
        assert {:error, %Error{reason: :not_running, details: %{server: ^server}}} = answer
      end
    end

    test "in stream, whose text may be a string or an Enumerable" do
      for server <- @servers,
          text <- ["Hello.", ["Hel", "lo."], Stream.map(["Hello."], & &1), MapSet.new(["Hi."])] do
        for stream <- [
              Chatterbex.stream(text, server: server),
              Chatterbex.stream(server, text),
              Chatterbex.stream(server, text, seed: 1)
            ] do
          assert %Error{reason: :not_running} = catch_error(Enum.to_list(stream))
        end
      end
    end

    test "a list of strings is a text, also an empty one" do
      server = start_fake()
      assert [_chunk] = server |> Chatterbex.stream(["Hello."]) |> Enum.to_list()
      assert [] = server |> Chatterbex.stream([]) |> Enum.to_list()
      assert [_chunk] = ["Hello."] |> Chatterbex.stream(server: server) |> Enum.to_list()
    end

    test "a text that is missing is an error of the text" do
      assert {:error, %Error{reason: :invalid_text}} = Chatterbex.generate(nil, server: MyApp.NoSuchServer)
      assert {:error, %Error{reason: :invalid_text}} = Chatterbex.generate(nil)
      assert %Error{reason: :invalid_text} = catch_error(Chatterbex.stream(nil, server: MyApp.NoSuchServer))
    end

    test "anything that is not a server is refused as one" do
      for no_server <- [nil, true, {:a, :b, :c}, 7] do
        assert {:error, %Error{reason: :invalid_option, message: message}} =
                 Chatterbex.generate(no_server, "Hello.")

        assert message =~ "the first argument must be a server: a name, a pid,"
        assert {:error, %Error{reason: :invalid_option}} = Chatterbex.generate(no_server, "Hello.", seed: 1)
        assert %Error{reason: :invalid_option} = catch_error(Chatterbex.stream(no_server, "Hello."))
      end
    end
  end

  describe "without a server" do
    test "every function asks the default one" do
      assert {:ok, %{server: DefaultServer}} = Chatterbex.info()
      assert :ok = Chatterbex.await_ready()
      assert {:ok, [%{name: "heart", kind: :model}]} = Chatterbex.Voice.list()

      # The built-in model says so itself.
      audio = Chatterbex.VoiceHelp.tone(6)

      assert {:error, %Error{reason: :not_supported, details: %{model: :hibari}}} =
               Chatterbex.Voice.clone(audio)

      assert {:error, %Error{reason: :not_supported, details: %{model: :hibari}}} =
               Chatterbex.convert(audio, voice: "heart")
    end
  end

  test "a server in place of options: the error says how to pass it" do
    for function <- [
          &Chatterbex.info/1,
          &Chatterbex.await_ready/1,
          &Chatterbex.stop/1,
          &Chatterbex.Voice.list/1
        ] do
      assert {:error, %Error{reason: :invalid_option, message: message}} = function.(MyApp.Speech)
      assert message =~ "options must be a keyword list, as in [server: MyApp.Speech], got MyApp.Speech"
    end
  end

  test "listing the voices of a folder and of a server at once is refused" do
    assert {:error, %Error{reason: :invalid_option, message: message}} =
             Chatterbex.Voice.list(server: MyApp.Speech, folder: "/voices")

    assert message == "a server (MyApp.Speech) and a folder (/voices) were given; give one"
  end
end
