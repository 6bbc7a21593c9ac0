defmodule Chatterbex.Options.Schema do
  @moduledoc false
  # The options as data: type, default and documentation of each. `Chatterbex.Options.Cast` checks values against the types.
  #
  # The documentation of many modules is made from this at compile time, so it must use no other module of the library:
  # a change in one would compile them all again.

  # Those that trade quality for speed, of a server for all of its requests, or of one request.
  @reference_seconds [
    type: {:number, 3.0, 10.0},
    doc:
      "how many seconds of the voice's recording, from its beginning, the flow listens to; by default all, at most 10. " <>
        "With fewer, speech is made faster and has less of the recording's manner (all Chatterbox models): see " <>
        "[the guide](speed.md)"
  ]

  @flow_steps [
    type: {:integer, 1, 50},
    doc:
      "steps of the flow; by default 2 for `:turbo`, `:nano` and `flow: :meanflow`, and 10 for others. The work grows with " <>
        "their number (all Chatterbox models): see [the guide](speed.md)"
  ]

  @first_chunk_steps [
    type: {:integer, 1, 50},
    doc:
      "steps of the flow for the first chunk of a stream; by default as many as for the others. With 1 it is heard " <>
        "sooner, and may sound rougher (all Chatterbox models): see [the guide](speed.md)"
  ]

  @server [
    name: [type: :name, doc: "the name to register, as for any `GenServer`"],
    model: [type: :model, default: :hibari, doc: "the model to run, one of `Chatterbex.models/0`"],
    device: [type: :device, default: :auto, doc: "where to run it: see `Chatterbex.Device`"],
    fallback: [
      type: :boolean,
      default: true,
      doc: "whether a device that does not work is replaced by the CPU; `false` makes that an error"
    ],
    threads: [
      type: {:integer, 1, 256},
      doc: "threads for the model's arithmetic; the default leaves the schedulers one core"
    ],
    max_queue: [
      type: {:integer, 0, 1_000_000},
      default: 200,
      doc:
        "how many requests may be open beyond the `:max_batch` that the model works on at a time; one more is refused " <>
          "with `:overloaded`. A request is open from its call to its last audio, whether it waits, is spoken piece by " <>
          "piece, or is a stream that is taken slowly; while the model loads, all of them wait. Calls of " <>
          "`Chatterbex.Voice.clone/2` are counted apart, with the same limit"
    ],
    max_batch: [
      type: {:integer, 1, 256},
      doc: "how many requests the model may work on at once; the default is the model's own"
    ],
    max_characters: [
      type: {:integer, 1, 10_000_000},
      default: 20_000,
      doc:
        "how long the text of `Chatterbex.generate/2` may be, in characters (about 25 minutes of speech); " <>
          "that of a stream may be longer"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "milliseconds for one request, waiting included, where the request names none"
    ],
    checkpoint: [
      type: :string,
      doc: "a folder with the model's files; the default is what `mix chatterbex.models download` has fetched"
    ],
    download: [
      type: :boolean,
      default: false,
      doc: "whether files of the model that are missing are fetched when the server starts"
    ],
    repo: [
      type: :string,
      doc:
        "the repository of a fine-tune of the model, as in `\"someone/chatterbox-german\"`: see `Chatterbex.ModelFiles`"
    ],
    t3: [
      type: :string,
      doc: "a fine-tuned T3, a `.safetensors` file: its path or, with `:repo`, its name in the repository"
    ],
    revision: [type: :string, doc: "the revision of the model's repository, a commit's hash or a branch"],
    version: [type: {:in, [:v2, :v3]}, doc: "the version of `:multilingual`; the default is `:v3`"],
    language_pack: [
      type: {:in, ["zh-cmn", "es-mx-latam", "pt-br", "es-es", "pt-pt", "hi"]},
      doc: "a pack of `:multilingual` that was made for one language"
    ],
    flow: [
      type: {:in, [:cfm, :meanflow]},
      doc:
        "`:meanflow` makes the sound with the distilled flow of `:turbo`, which computes its network twice and not 20 times; " <>
          "`:cfm` is the model's own (`:english`, `:multilingual`, `:conversion`): see [the guide](speed.md)"
    ],
    flow_steps: @flow_steps,
    first_chunk_steps: @first_chunk_steps,
    reference_seconds: @reference_seconds,
    max_voices: [
      type: {:integer, 1, 100_000},
      doc: "how many voices made from audio the model keeps; the default is the model's own, 32"
    ],
    precision: [
      type: {:in, [:float32, :bfloat16, :int8, :auto]},
      default: :float32,
      doc:
        "the lowest precision that a part of the model may compute in: lower ones are faster and take less memory, and " <>
          "speak slightly differently. `:auto` measures on the CPU which ones the model's files bear, and takes the fastest " <>
          "of those: see [the guide](production.md#precision)"
    ],
    voices: [
      type: :folder,
      doc:
        "the folder of voices that can be asked for by name, a path or `{:my_app, \"priv/voices\"}`: see " <>
          "`Chatterbex.Voice`"
    ],
    load_timeout: [
      type: :timeout,
      default: 600_000,
      doc:
        "milliseconds that starting Python and loading the model may take; fetching its files (`:download`) is not " <>
          "counted, and ends by itself where the transfer stands still"
    ],
    idle: [
      type: :timeout,
      default: :infinity,
      doc:
        "milliseconds without an open request, call or stream after which the model is unloaded to free its memory; the " <>
          "next request loads it again: see [the guide](production.md#idle-models)"
    ],
    isolation: [
      type: {:in, [:none, :peer]},
      default: :none,
      doc:
        "`:peer` runs the model in an operating system process of its own, so that a crash in native code ends that " <>
          "process and not this VM: see [the guide](production.md#isolation)"
    ],
    memory_limit: [
      type: {:integer, 268_435_456, 0xFFFFFFFFFFFF},
      doc:
        "bytes of memory that the process of an isolated model may write to, on Linux; a request that needs more fails " <>
          "with `:out_of_memory`, or ends the process. Memory of a GPU and files that are only read are not counted"
    ],
    home: [type: :string, doc: "the folder that `mix chatterbex.setup --path` was given"],
    testing: [
      type: :boolean,
      default: false,
      doc: "`true` runs no model: tones are spoken, for the tests of an application, see `Chatterbex.Test`"
    ],
    model_options: [
      type: :map,
      default: %{},
      doc: "options for the `load` of a model of your own, as in `%{size: \"small\"}`"
    ]
  ]

  @pool Keyword.merge(
          @server,
          isolation: Keyword.put(@server[:isolation], :default, :peer),
          size: [
            type: {:integer, 0, 1024},
            default: 1,
            doc: "how many servers the pool has on this node; with 0 it uses those of other nodes only"
          ],
          devices: [
            type: :devices,
            doc:
              "the devices of the servers, in turn, as in `[{:cuda, 0}, {:cuda, 1}]`; the default is `:device` for all"
          ]
        )

  @request [
    server: [type: :server, doc: "the server to ask; the default server is started on first use"],
    voice: [
      type: :voice,
      doc:
        "the voice to speak in: a name, a file as `{:file, \"ann.wav\"}`, a `Chatterbex.Audio` or a " <>
          "`Chatterbex.Voice`; the default is the model's own"
    ],
    norm_loudness: [
      type: :boolean,
      specific: true,
      doc:
        "whether the recording of a voice is brought to -27 LUFS before the voice is made; `true` by default. It does not " <>
          "change a saved voice or the model's own (`:turbo`, `:nano`)"
    ],
    language: [
      type: :string,
      doc: "the language of the text, as in `\"de\"`; the default is the first of the model's `languages`"
    ],
    seed: [
      type: {:integer, 0, 0xFFFFFFFF},
      doc:
        "makes the same text give the same audio; without it a random one is drawn and told in the metadata"
    ],
    deadline: [
      type: :datetime,
      doc: "a `DateTime`; what is not done by then ends with a `:timeout` error"
    ],
    priority: [
      type: {:in, [:high, :normal, :low]},
      default: :normal,
      doc: "requests that wait with a higher one are spoken first; within one, callers take turns"
    ],
    sentence_pause: [
      type: {:integer, 0, 60_000},
      default: 250,
      doc: "milliseconds of silence after a sentence, where the text is cut there"
    ],
    paragraph_pause: [
      type: {:integer, 0, 60_000},
      default: 700,
      doc: "milliseconds of silence after a paragraph"
    ],
    unknown_sounds: [
      type: {:in, [:refuse, :drop]},
      default: :refuse,
      doc: "what to do about a sound such as `[laugh]` that the model does not have"
    ],
    progress: [
      type: :function,
      doc:
        "a function that is called in the calling process with a map after each piece of the text: " <>
          "`:characters` spoken of `:total` (`nil` where the text is still being written), `:pieces`, and `:seconds` of audio"
    ],
    speed: [type: {:number, 0.5, 2.0}, specific: true, doc: "the pace; 1.0 is the voice's own (`:hibari`)"],
    temperature: [
      type: {:number, 0.0, 5.0},
      specific: true,
      doc:
        "how freely speech tokens are drawn; 0 takes the likeliest; the default is 0.8 (all Chatterbox models)"
    ],
    top_p: [
      type: {:number, 0.0, 1.0},
      specific: true,
      doc:
        "draw from the likeliest tokens that have this much probability together; 0.95 by default, 1.0 " <>
          "for `:english` and `:multilingual`"
    ],
    top_k: [
      type: {:integer, 1, 10_000},
      specific: true,
      doc: "draw from so many of the likeliest tokens; 1000 by default (`:turbo`, `:nano`)"
    ],
    min_p: [
      type: {:number, 0.0, 1.0},
      specific: true,
      doc:
        "leave out tokens with less than this share of the likeliest one's probability; 0.05 by default " <>
          "(`:english`, `:multilingual`)"
    ],
    repetition_penalty: [
      type: {:number, 1.0, 10.0},
      specific: true,
      doc: "how much tokens that were spoken are avoided; 1.2 by default"
    ],
    cfg_weight: [
      type: {:number, 0.0, 10.0},
      specific: true,
      doc:
        "how closely the text is followed; 0.5 by default, and 0 halves the work (`:english`, `:multilingual`)"
    ],
    exaggeration: [
      type: {:number, 0.0, 2.0},
      specific: true,
      doc: "how lively the voice is; 0.5 by default (`:english`, `:multilingual`)"
    ],
    reference_seconds: [{:specific, true} | @reference_seconds],
    flow_steps: [{:specific, true} | @flow_steps],
    max_tokens: [
      type: {:integer, 1, 4096},
      specific: true,
      doc:
        "speech tokens, 25 a second, after which a piece of text ends; by default as many as a slow reader of the " <>
          "piece would need, at most 1000"
    ],
    retries: [
      type: {:integer, 0, 10},
      specific: true,
      doc:
        "how often a piece that came out silent or without end is spoken again with another seed; 2 by default"
    ]
  ]

  @generate Keyword.merge(
              [
                timeout: [
                  type: :timeout,
                  doc: "milliseconds for this request, waiting included; the default is the server's"
                ]
              ],
              @request
            )

  @stream Keyword.merge(
            [
              timeout: [
                type: :timeout,
                doc: "the most milliseconds between two chunks; the default is the server's"
              ],
              ahead: [
                type: {:integer, 1, 64},
                doc:
                  "how many pieces of the text are asked for before the first of them was taken; the default is " <>
                    "what keeps the model busy"
              ],
              resume: [
                type: :boolean,
                default: false,
                doc:
                  "whether a stream goes on when the process of an isolated model died while it was being spoken: the " <>
                    "sentence is spoken again with the same seed, without what was heard of it; `false` ends it with `:engine_crashed`"
              ],
              first_chunk_steps: [{:specific, true} | @first_chunk_steps],
              chunk_tokens: [
                type: {:integer, 1, 1000},
                specific: true,
                doc: "speech tokens of the first chunk, 25 a second; 10 by default (all Chatterbox models)"
              ],
              chunk_growth: [
                type: {:number, 1.0, 10.0},
                specific: true,
                doc: "how much larger each further chunk is; 2.0 by default, more where playback would starve"
              ],
              chunk_most: [
                type: {:integer, 1, 1000},
                specific: true,
                doc: "speech tokens of the largest chunk; 250 by default"
              ]
            ],
            @request
          )

  @stream_to Keyword.put(@stream, :max_unacked,
               type: {:integer, 1, 100_000},
               doc:
                 "how many chunks may be on their way without being acknowledged; further ones are held back until " <>
                   "`Chatterbex.ack/2` acknowledges some. By default all are sent as soon as they are made"
             )

  @sentences [
    language: [
      type: :language,
      default: "en",
      doc: "the code of the text's language, as in `\"de\"` or `\"pt-BR\"`"
    ]
  ]

  @chunks Keyword.merge(@sentences,
            max: [
              type: {:integer, 20, 10_000},
              default: 280,
              doc: "characters (graphemes) that a chunk may have; from about 300 on models begin to garble"
            ],
            sentence_pause: [
              type: {:integer, 0, 60_000},
              default: 250,
              doc:
                "milliseconds of silence after a chunk that ends with a sentence, a heading or an item of a list"
            ],
            paragraph_pause: [
              type: {:integer, 0, 60_000},
              default: 700,
              doc: "milliseconds of silence after a paragraph. After the last chunk there is none."
            ],
            group: [
              type: :boolean,
              default: true,
              doc:
                "whether sentences are put together. Between sentences of one chunk the model itself makes the " <>
                  "pause; with `false` each sentence is a chunk of its own, and `:sentence_pause` follows each."
            ],
            sounds: [
              type: :sounds,
              default: [],
              doc: "the sounds that the model has, as in `[\"laugh\", \"clear throat\"]`"
            ],
            unknown_sounds: [
              type: {:in, [:refuse, :drop]},
              default: :refuse,
              doc: "what to do about sounds that it does not have"
            ]
          )

  @chunk_stream Keyword.update!(@chunks, :group, &Keyword.put(&1, :default, false))

  @convert @generate
           |> Keyword.take([:timeout, :seed, :deadline, :priority, :reference_seconds, :flow_steps])
           |> Keyword.merge(
             server: [type: :server, doc: "the server to ask, which must run the model `:conversion`"],
             voice: [
               type: :voice,
               doc: "the voice to say it in, as for `Chatterbex.generate/2`; it must be given"
             ]
           )

  @info [server: @request[:server]]

  @await_ready [
    server: @request[:server],
    timeout: [type: :timeout, default: 600_000, doc: "the most milliseconds to wait"]
  ]

  @stop [
    server: [type: :server, doc: "the server to stop; the default is the default server"],
    timeout: [type: :timeout, default: 5_000, doc: "the most milliseconds to wait for its end"]
  ]

  @drain [
    timeout: [type: :timeout, default: 60_000, doc: "the most milliseconds to wait for what is open"]
  ]

  @logger [
    level: [
      type: {:in, [:debug, :info, :notice, :warning, :error]},
      default: :info,
      doc: "the level of the lines; those of what failed are warnings at least"
    ]
  ]

  @test [
    from: [
      type: :asker,
      doc:
        "the process that asked, or that those who asked have among their `$callers`; `:anyone` is all of them. The default " <>
          "is the calling process"
    ]
  ]

  @voices [
    server: [
      type: :server,
      doc:
        "the server whose voices are listed, those of its model and of its folder; the default is the default server"
    ],
    folder: [type: :folder, doc: "a folder whose voices are listed instead; no server is asked"]
  ]

  @clone [
    server: [type: :server, doc: "the server whose model makes the voice; the default is the default server"],
    name: [type: {:string, 200}, doc: "what the voice is called"],
    note: [
      type: {:string, 4000},
      doc: "kept with the voice: whose it is, what they agreed to, its licence"
    ],
    norm_loudness: [
      type: :boolean,
      doc:
        "whether the recording is brought to -27 LUFS before the voice is made; `true` by default (`:turbo`, `:nano`)"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "milliseconds that it may take, the loading of the model included"
    ]
  ]

  @wav [
    encoding: [
      type: {:in, [:s16, :s24, :f32]},
      default: :s16,
      doc: "16-bit or 24-bit integers, or 32-bit floats"
    ]
  ]

  @flac [
    encoding: [type: {:in, [:s16, :s24]}, default: :s16, doc: "16-bit or 24-bit integers"]
  ]

  @opus [
    bitrate: [
      type: {:integer, 6_000, 510_000},
      default: 48_000,
      doc: "bits a second; for speech in one channel, RFC 6716 names 28000 to 40000"
    ]
  ]

  @mp3 [
    bitrate: [
      type: {:integer, 8_000, 320_000},
      default: 64_000,
      doc:
        "bits a second, brought to one that MP3 knows: at most 160000 below 32000 Hz. From there on it is the mean " <>
          "of a bitrate that varies"
    ]
  ]

  @write [
    format: [
      type: {:in, [:wav, :flac, :opus, :mp3]},
      doc:
        "what to write; the default is what the path's ending says, `.wav`, `.flac`, `.opus`, `.ogg` or `.mp3`, and WAV " <>
          "where it says nothing"
    ]
  ]

  @plot [
    format: [type: {:in, [:svg, :png]}, default: :svg, doc: "the kind of picture"],
    show: [
      type: {:in, [:both, :waveform, :spectrogram]},
      default: :both,
      doc: "what is drawn; of both, the waveform is above"
    ],
    width: [type: {:integer, 160, 4_096}, default: 800, doc: "in pixels"],
    height: [type: {:integer, 160, 4_096}, default: 400, doc: "in pixels"]
  ]

  @read [
    max_bytes: [
      type: {:integer, 1, 0xFFFFFFFF},
      default: 104_857_600,
      doc: "how large the file may be, in bytes"
    ],
    max_seconds: [
      type: {:integer, 1, 86_400},
      default: 3_600,
      doc: "how long the audio may be: a small file may hold hours"
    ],
    max_samples: [
      type: {:integer, 1, 0x20000000},
      default: 200_000_000,
      doc:
        "how many samples the audio may have, in all channels together; each takes 4 bytes of memory. The default is " <>
          "an hour in one channel at 48 kHz"
    ]
  ]

  @silence [
    sample_rate: [type: {:integer, 1_000, 768_000}, default: 24_000, doc: "frames a second, in Hz"],
    channels: [type: {:integer, 1, 64}, default: 1, doc: "samples a frame"]
  ]

  @trim [
    threshold: [
      type: {:number, -120, 0},
      default: -50,
      doc: "in dBFS: a sound begins and ends with a sample that is louder"
    ],
    margin: [
      type: {:integer, 0, 60_000},
      default: 50,
      doc: "milliseconds of what is there that are kept before and after the sound, for its onset and decay"
    ]
  ]

  # What EBU R128 asks for in broadcasts.
  @normalize [
    loudness: [
      type: {:number, -70, 0},
      default: -23,
      doc: "the loudness to reach, in LUFS: -23 is EBU R128's; podcasts are mostly at -16 to -19"
    ],
    peak: [
      type: {:number, -30, 0},
      default: -1,
      doc: "how high the true peak may become, in dBTP: audio that would go beyond is made less loud"
    ]
  ]

  @bench @server
         |> Keyword.take([
           :model,
           :device,
           :threads,
           :checkpoint,
           :download,
           :repo,
           :t3,
           :revision,
           :version,
           :precision,
           :home
         ])
         |> Keyword.merge(
           rounds: [
             type: {:integer, 1, 100},
             default: 3,
             doc: "how often each sentence is measured"
           ],
           max_tokens: @request[:max_tokens],
           timeout: [
             type: :timeout,
             default: 600_000,
             doc: "milliseconds that a sentence may take"
           ],
           progress: [
             type: :function,
             doc: "a function that is called with a line about what is being done"
           ]
         )

  @prove @server
         |> Keyword.take([:model, :device, :threads, :checkpoint, :download, :revision, :version, :home])
         |> Keyword.merge(
           max_tokens: @request[:max_tokens],
           timeout: [
             type: :timeout,
             default: 600_000,
             doc: "milliseconds that a sentence may take"
           ],
           recogniser: [
             type: :string,
             doc:
               "a Python that has pocketsphinx; by default that of the environment which `:install_recogniser` makes"
           ],
           install_recogniser: [
             type: :boolean,
             default: false,
             doc: "whether the recogniser's environment is made where it is missing, from the package index"
           ],
           progress: [
             type: :function,
             doc: "a function that is called with a line about what is being done"
           ]
         )

  @http [
    server: [type: :server, doc: "the server that speaks; the default server is started on first use"],
    models: [
      type: :named,
      default: %{},
      doc:
        "servers by the names that requests ask for, as in `%{\"turbo\" => MyApp.Turbo}`; by default one, named after its model"
    ],
    api_key: [
      type: {:string, 1_000},
      doc: "the key that requests must carry as `Authorization: Bearer KEY`; by default none is asked for"
    ],
    max_input: [
      type: {:integer, 1, 1_000_000},
      default: 4_096,
      doc: "how long `input` may be, in characters"
    ],
    max_body: [
      type: {:integer, 1, 67_108_864},
      default: 262_144,
      doc: "how large the body of a request may be, in bytes"
    ],
    add_voices: [
      type: :boolean,
      default: false,
      doc:
        "whether `POST /v1/audio/voices` makes voices of recordings, which are kept in the folder of voices of the server"
    ],
    max_recording: [
      type: {:integer, 1, 67_108_864},
      default: 10_485_760,
      doc: "how large such a recording may be, in bytes"
    ],
    unknown_fields: [
      type: {:in, [:reject, :pass]},
      default: :reject,
      doc:
        "what to do about fields that OpenAI does not have: `:pass` hands `seed`, `temperature` and other options of " <>
          "`Chatterbex.generate/2` to the model"
    ],
    cors: [
      type: {:string, 1_000},
      doc:
        "the origin of web pages that may call, as in `\"https://example.com\"`, or `\"*\"` for all; by default none"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "the most milliseconds that the model may take for the next piece of audio"
    ]
  ]

  @http_server Keyword.merge(@http,
                 name: [type: :name, doc: "the name to register"],
                 port: [
                   type: {:integer, 0, 65_535},
                   default: 4_000,
                   doc: "the port to listen on; 0 takes a free one"
                 ],
                 ip: [
                   type: {:string, 100},
                   default: "127.0.0.1",
                   doc: "the address to listen on; `\"0.0.0.0\"` and `\"::\"` are all of the machine's"
                 ],
                 max_connections: [
                   type: {:integer, 1, 100_000},
                   default: 512,
                   doc: "how many connections may be open; one more is answered with 503"
                 ],
                 max_requests: [
                   type: {:integer, 1, 100_000},
                   default: 100,
                   doc: "how many requests for speech may be served at a time; one more is answered with 429"
                 ],
                 max_head: [
                   type: {:integer, 1_024, 1_048_576},
                   default: 16_384,
                   doc: "how large the request line and the headers may be together, in bytes"
                 ],
                 idle_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 60_000,
                   doc: "milliseconds that a connection may stay open without a request"
                 ],
                 read_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 15_000,
                   doc: "milliseconds in which a request must have arrived whole, from its first byte"
                 ],
                 send_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 30_000,
                   doc: "milliseconds in which the client must take a part of the answer"
                 ],
                 request_timeout: [
                   type: {:integer, 1, 86_400_000},
                   default: 600_000,
                   doc: "milliseconds that one request may take from its arrival to the end of its answer"
                 ],
                 drain_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 30_000,
                   doc: "milliseconds that a server which is stopped gives requests to end"
                 ]
               )

  @groups [
    http: @http,
    http_server: @http_server,
    bench: @bench,
    prove: @prove,
    server: @server,
    pool: @pool,
    generate: @generate,
    stream: @stream,
    stream_to: @stream_to,
    convert: @convert,
    clone: @clone,
    info: @info,
    await_ready: @await_ready,
    stop: @stop,
    drain: @drain,
    voices: @voices,
    logger: @logger,
    test: @test,
    sentences: @sentences,
    chunks: @chunks,
    chunk_stream: @chunk_stream,
    write: @write,
    wav: @wav,
    flac: @flac,
    opus: @opus,
    mp3: @mp3,
    plot: @plot,
    read: @read,
    silence: @silence,
    trim: @trim,
    normalize: @normalize
  ]

  @spec fetch(atom) :: keyword
  def fetch(group), do: Keyword.fetch!(@groups, group)

  @doc """
  The options of a group, or some of them, as a Markdown list.
  """
  @spec docs(atom, [atom] | :all) :: String.t()
  def docs(group, names \\ :all) do
    schema = if names == :all, do: fetch(group), else: Keyword.take(fetch(group), names)

    Enum.map_join(schema, "\n", fn {name, spec} ->
      default = if is_nil(spec[:default]), do: "", else: " (default `#{inspect(spec[:default])}`)"
      "  * `:#{name}` - #{describe(spec[:type])}: #{spec[:doc]}#{default}"
    end)
  end

  @doc """
  A type in words, to follow "must be".
  """
  @spec describe(term) :: String.t()
  def describe(:boolean), do: "true or false"
  def describe(:string), do: "a string"
  def describe({:string, most}), do: "a string of at most #{most} characters"
  def describe(:map), do: "a map whose keys are atoms"
  def describe(:named), do: "a map whose keys are strings"
  def describe({:integer, min, max}), do: "a whole number from #{min} to #{max}"
  def describe({:number, min, max}), do: "a number from #{min} to #{max}"
  def describe({:in, values}), do: "one of " <> Enum.map_join(values, ", ", &inspect/1)
  def describe(:timeout), do: "a number of milliseconds from 1 to 4294967295, or :infinity"

  def describe(:device),
    do: ~s(:auto, :cpu, :mps, :cuda, {:cuda, n}, or one of these as a string such as "cuda:1")

  def describe(:devices), do: "a list of devices, as in [{:cuda, 0}, {:cuda, 1}]"

  def describe(:model), do: "the name of a model, an atom or a string"

  def describe(:voice),
    do: ~s(the name of a voice, {:file, "ann.wav"}, a Chatterbex.Audio or a Chatterbex.Voice)

  def describe(:language), do: ~s(the code of a language, as in "en")
  def describe(:sounds), do: ~s(a list of names without brackets, as in ["laugh", "sigh"])
  def describe(:folder), do: ~s(the path of a folder, or {:my_app, "priv/voices"} for one of an application)
  def describe(:datetime), do: "a DateTime"
  def describe(:function), do: "a function of one argument"
  def describe(:name), do: "an atom, {:via, module, name} or {:global, name}"
  def describe(:asker), do: "a pid or :anyone"
  def describe(:server), do: "a server: a name, a pid, {name, node}, {:via, module, name} or {:global, name}"

  @doc """
  A value as it stands in a message: never longer than a line.
  """
  @spec show(term) :: String.t()
  def show(value), do: value |> inspect(limit: 5, printable_limit: 60) |> String.slice(0, 120)
end
