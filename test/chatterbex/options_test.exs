defmodule Chatterbex.OptionsTest do
  use ExUnit.Case, async: true

  alias Chatterbex.Options
  alias Chatterbex.Options.{Cast, Schema}

  defp message(group, options) do
    assert {:error, %Chatterbex.Error{reason: :invalid_option, message: message}} =
             Options.validate(group, options)

    message
  end

  test "a misspelt option is refused with the nearest name" do
    assert message(:server, modle: :hibari) =~
             "unknown option :modle. Did you mean :model? The options are :name, "

    assert message(:generate, timeot: 5) =~ "Did you mean :timeout?"
    assert message(:wav, encodign: :s16) =~ "Did you mean :encoding?"
    assert message(:generate, zzz: 5) =~ "unknown option :zzz. The options are"
  end

  test "options must be a keyword list" do
    assert message(:generate, %{seed: 7}) == "options must be a keyword list, as in [seed: 7], got %{seed: 7}"
    assert message(:generate, [:seed]) == "options must be a keyword list, as in [seed: 7], got [:seed]"
    assert message(:generate, "seed") == ~s(options must be a keyword list, as in [seed: 7], got "seed")
  end

  test "the error for a wrong value says what was expected" do
    table = [
      {:server, :precision, :int4, "must be one of :float32, :bfloat16, :int8, :auto, got :int4"},
      {:server, :precision, "auto", ~s(:auto, got "auto")},
      {:generate, :seed, -1, "must be a whole number from 0 to 4294967295, got -1"},
      {:generate, :seed, 1.5, "must be a whole number from 0 to 4294967295, got 1.5"},
      {:generate, :seed, 0x100000000, "got 4294967296"},
      {:generate, :speed, 0.49, "must be a number from 0.5 to 2.0, got 0.49"},
      {:generate, :speed, 2.01, "must be a number from 0.5 to 2.0, got 2.01"},
      {:generate, :speed, "1", ~s(must be a number from 0.5 to 2.0, got "1")},
      {:generate, :timeout, 0, "must be a number of milliseconds from 1 to 4294967295, or :infinity, got 0"},
      {:generate, :timeout, :never, "or :infinity, got :never"},
      {:generate, :voice, :heart,
       ~s(must be the name of a voice, {:file, "ann.wav"}, a Chatterbex.Audio or a Chatterbex.Voice)},
      {:generate, :voice, <<255>>, "or a Chatterbex.Voice, got <<255>>"},
      {:generate, :server, "speech", "must be a server: a name, a pid,"},
      {:server, :device, "gpu",
       ~s(must be :auto, :cpu, :mps, :cuda, {:cuda, n}, or one of these as a string)},
      {:server, :device, {:cuda, -1}, "got {:cuda, -1}"},
      {:server, :model, 7, "must be the name of a model, an atom or a string, got 7"},
      {:server, :fallback, "no", ~s(must be true or false, got "no")},
      {:server, :threads, 0, "must be a whole number from 1 to 256, got 0"},
      {:server, :max_queue, -1, "must be a whole number from 0 to 1000000, got -1"},
      {:server, :max_batch, 257, "must be a whole number from 1 to 256, got 257"},
      {:server, :name, "speech", ~s(must be an atom, {:via, module, name} or {:global, name}, got "speech")},
      {:server, :model_options, [a: 1], "must be a map whose keys are atoms, got [a: 1]"},
      {:server, :model_options, %{"a" => 1}, ~s(must be a map whose keys are atoms, got %{"a" => 1})},
      {:wav, :encoding, :mp3, "must be one of :s16, :s24, :f32, got :mp3"}
    ]

    for {group, name, value, expected} <- table do
      message = message(group, [{name, value}])
      assert message =~ "option #{inspect(name)} "
      assert message =~ expected
    end
  end

  test "a long value does not flood its message" do
    assert String.length(message(:generate, seed: String.duplicate("x", 100_000))) < 250
  end

  test "nil means not given" do
    assert {:ok, %{max_queue: 200, device: :auto}} = Options.validate(:server, max_queue: nil, device: nil)
  end

  test "values are normalised" do
    assert {:ok, %{device: {:cuda, 1}}} = Options.validate(:server, device: "cuda:1")
    assert {:ok, %{speed: 1.0}} = Options.validate(:generate, speed: 1)
  end

  test "a model refuses options and voices that it does not have" do
    {:ok, hibari} = Chatterbex.Model.fetch(:hibari)
    {:ok, fake} = Chatterbex.Model.fetch(:fake)

    assert {:error, %{reason: :not_supported, message: message}} = Options.supported(%{speed: 1.0}, fake)
    assert message == "the model :fake has no option :speed. Its own options are none."

    assert {:error, %{reason: :not_supported, message: message}} =
             Chatterbex.Voice.resolve("emma", %{model: hibari})

    assert message == ~s(the model :hibari has no voice "emma". Its voices: "heart".)
  end

  test "a model refuses server options that do not apply to it" do
    for {options, message} <- [
          {[checkpoint: "/models"],
           "the model :hibari has no option :checkpoint: this model comes with the setup, and has no files of its own."},
          {[model: "hibari", revision: "main"],
           "the model :hibari has no option :revision: this model comes with the setup, and has no files of its own."},
          {[model: :hibari, version: :v2],
           "the model :hibari has no option :version: only :multilingual has it."},
          {[language_pack: "hi"],
           "the model :hibari has no option :language_pack: only :multilingual has it."},
          {[flow: :meanflow],
           "the model :hibari has no option :flow: only :english, :multilingual and :conversion have it."},
          {[model: :nano, flow: :meanflow],
           "the model :nano has no option :flow: only :english, :multilingual and :conversion have it."},
          {[flow_steps: 2],
           "the model :hibari has no option :flow_steps: only the Chatterbox models have it."},
          {[first_chunk_steps: 1],
           "the model :hibari has no option :first_chunk_steps: only the Chatterbox models have it."},
          {[reference_seconds: 5],
           "the model :hibari has no option :reference_seconds: only the Chatterbox models have it."},
          {[model: :turbo, checkpoint: "/models", version: :v3],
           "the model :turbo has no option :version: only :multilingual has it."}
        ] do
      assert {:error, %{reason: :not_supported, message: ^message}} = Chatterbex.start_link(options)
    end
  end

  test "options that trade quality for speed have ranges, for servers, requests and conversions" do
    for {option, good, bad, range} <- [
          {:reference_seconds, [3, 4.5, 10], [2.9, 11, "5"], "a number from 3.0 to 10.0"},
          {:flow_steps, [1, 50], [0, 51, 2.0], "a whole number from 1 to 50"},
          {:first_chunk_steps, [1, 50], [0, 51, "1"], "a whole number from 1 to 50"}
        ],
        group <- [:server, :pool, :generate, :stream, :stream_to, :convert],
        option != :first_chunk_steps or group not in [:generate, :convert] do
      for value <- good do
        assert {:ok, valid} = Options.validate(group, [{option, value}])
        assert valid[option] == value
      end

      assert {:ok, valid} = Options.validate(group, [])
      assert valid[option] == nil

      for value <- bad do
        assert message(group, [{option, value}]) ==
                 "option #{inspect(option)} must be #{range}, got #{inspect(value)}"
      end
    end

    assert message(:server, flow: :mean) == "option :flow must be one of :cfm, :meanflow, got :mean"
    assert message(:generate, flow: :meanflow) =~ "unknown option :flow."
  end

  test "a model is loaded with the server's options" do
    {:ok, english} = Chatterbex.Model.fetch(:english)
    given = [flow: :meanflow, flow_steps: 4, first_chunk_steps: 1, reference_seconds: 3]
    assert {:ok, options} = Options.validate(:server, given)

    assert %{
             "flow" => "meanflow",
             "flow_steps" => 4,
             "first_chunk_steps" => 1,
             "reference_seconds" => 3.0
           } = Chatterbex.Server.Loading.command(1, english, options, "/files")["options"]
  end

  test "a request to a model without a flow refuses flow options" do
    {:ok, hibari} = Chatterbex.Model.fetch(:hibari)

    for option <- [:reference_seconds, :flow_steps, :first_chunk_steps] do
      assert {:error, %{reason: :not_supported, message: message}} = Options.supported(%{option => 5}, hibari)

      assert message == "the model :hibari has no option #{inspect(option)}. Its own options are :speed."

      for name <- [:turbo, :nano, :english, :multilingual, :conversion] do
        {:ok, model} = Chatterbex.Model.fetch(name)
        assert Options.supported(%{option => 5}, model) == :ok
      end
    end
  end

  test "every default passes its own check, and every option is documented" do
    for group <- [:server, :generate, :stream, :wav], {name, spec} <- Schema.fetch(group) do
      unless is_nil(spec[:default]), do: assert({:ok, _value} = Cast.cast(spec[:type], spec[:default]))
      assert Schema.docs(group) =~ "`:#{name}` - "
    end
  end
end
