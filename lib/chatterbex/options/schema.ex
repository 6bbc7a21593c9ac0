defmodule Chatterbex.Options.Schema do
  @moduledoc false
  # The options as data: type, default and documentation of each. `Chatterbex.Options.Cast` checks values against the types.
  #
  # Many modules build their documentation from this at compile time, so it must not use any other module of the library:
  # a change in one would recompile them all.

  # These options trade quality for speed, for all requests of a server or for one request.
  @reference_seconds [
    type: {:number, 3.0, 10.0},
    doc:
      "how many seconds of the voice's recording, from its beginning, the flow uses; by default all, at most 10. " <>
        "With fewer, speech is faster to make and sounds less like the recording (all Chatterbox models): see " <>
        "[the guide](speed.md)"
  ]

  @flow_steps [
    type: {:integer, 1, 50},
    doc:
      "steps of the flow; by default 2 for `:turbo`, `:nano` and `flow: :meanflow`, and 10 for the others. More steps take " <>
        "more time (all Chatterbox models): see [the guide](speed.md)"
  ]

  @first_chunk_steps [
    type: {:integer, 1, 50},
    doc:
      "steps of the flow for the first chunk of a stream; by default the same as for the others. With 1 you hear it " <>
        "sooner, but it may sound rougher (all Chatterbox models): see [the guide](speed.md)"
  ]

  @server [
    name: [type: :name, doc: "the name to register, as for any `GenServer`"],
    model: [type: :model, default: :hibari, doc: "the model to run, one of `Chatterbex.models/0`"],
    device: [type: :device, default: :auto, doc: "where to run it: see `Chatterbex.Device`"],
    fallback: [
      type: :boolean,
      default: true,
      doc: "whether to fall back to the CPU if the device does not work; with `false` that is an error"
    ],
    threads: [
      type: {:integer, 1, 256},
      doc: "threads for the model's arithmetic; the default leaves one core to the schedulers"
    ],
    max_queue: [
      type: {:integer, 0, 1_000_000},
      default: 200,
      doc:
        "how many requests may be open beyond the `:max_batch` that the model works on at a time; any further request is " <>
          "refused with `:overloaded`. A request is open from the call to its last audio, whether it waits, is spoken " <>
          "piece by piece, or is a stream with a slow consumer. While the model loads, all requests wait. Calls of " <>
          "`Chatterbex.Voice.clone/2` count separately, with the same limit"
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
          "the text of a stream has no limit"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "milliseconds for one request, including the time it waits; a request can set its own"
    ],
    checkpoint: [
      type: :string,
      doc:
        "a folder with the model's files; the default is the files that `mix chatterbex.models download` fetched"
    ],
    download: [
      type: :boolean,
      default: false,
      doc: "whether to fetch missing files of the model when the server starts"
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
    revision: [type: :string, doc: "the revision of the model's repository, a commit hash or a branch"],
    version: [type: {:in, [:v2, :v3]}, doc: "the version of `:multilingual`; the default is `:v3`"],
    language_pack: [
      type: {:in, ["zh-cmn", "es-mx-latam", "pt-br", "es-es", "pt-pt", "hi"]},
      doc: "a pack of `:multilingual` for one language"
    ],
    flow: [
      type: {:in, [:cfm, :meanflow]},
      doc:
        "`:meanflow` uses the distilled flow of `:turbo`, which runs its network 2 times instead of 20; " <>
          "`:cfm` is the model's own flow (`:english`, `:multilingual`, `:conversion`): see [the guide](speed.md)"
    ],
    flow_steps: @flow_steps,
    first_chunk_steps: @first_chunk_steps,
    reference_seconds: @reference_seconds,
    max_voices: [
      type: {:integer, 1, 100_000},
      doc: "how many voices made from audio the model caches; the default is the model's own, 32"
    ],
    precision: [
      type: {:in, [:float32, :bfloat16, :int8, :auto]},
      default: :float32,
      doc:
        "the lowest precision that a part of the model may compute in. Lower precisions are faster, take less memory, and " <>
          "change the speech slightly. `:auto` measures on the CPU which ones work well with the model's files, and uses the " <>
          "fastest of them: see [the guide](production.md#precision)"
    ],
    voices: [
      type: :folder,
      doc:
        "the folder of voices that requests can name, a path or `{:my_app, \"priv/voices\"}`: see " <>
          "`Chatterbex.Voice`"
    ],
    load_timeout: [
      type: :timeout,
      default: 600_000,
      doc:
        "milliseconds that starting Python and loading the model may take. The time to fetch its files (`:download`) does " <>
          "not count; a transfer that stalls ends by itself"
    ],
    idle: [
      type: :timeout,
      default: :infinity,
      doc:
        "milliseconds without an open request, call or stream after which the server unloads the model to free its memory; " <>
          "the next request loads it again: see [the guide](production.md#idle-models)"
    ],
    isolation: [
      type: {:in, [:none, :peer]},
      default: :none,
      doc:
        "`:peer` runs the model in its own operating system process, so that a crash in native code ends that " <>
          "process and not this VM: see [the guide](production.md#isolation)"
    ],
    memory_limit: [
      type: {:integer, 268_435_456, 0xFFFFFFFFFFFF},
      doc:
        "bytes of memory that the process of an isolated model may write to, on Linux. A request that needs more fails " <>
          "with `:out_of_memory`, or ends the process. GPU memory and files that are only read do not count"
    ],
    home: [type: :string, doc: "the folder that you gave to `mix chatterbex.setup --path`"],
    testing: [
      type: :boolean,
      default: false,
      doc:
        "`true` speaks tones instead of running a model, for the tests of an application: see `Chatterbex.Test`"
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
            doc: "how many servers the pool has on this node; with 0 it only uses those of other nodes"
          ],
          devices: [
            type: :devices,
            doc:
              "the devices to assign to the servers, in turn, as in `[{:cuda, 0}, {:cuda, 1}]`; the default is `:device` for all"
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
        "whether to normalise the recording of a voice to -27 LUFS before the voice is made; `true` by default. It does not " <>
          "change a saved voice or the model's own (`:turbo`, `:nano`)"
    ],
    language: [
      type: :string,
      doc: "the language of the text, as in `\"de\"`; the default is the first of the model's `languages`"
    ],
    seed: [
      type: {:integer, 0, 0xFFFFFFFF},
      doc:
        "the same text with the same seed gives the same audio; without it a random seed is used, and reported in the metadata"
    ],
    deadline: [
      type: :datetime,
      doc: "a `DateTime`; a request that is not done by then fails with `:timeout`"
    ],
    priority: [
      type: {:in, [:high, :normal, :low]},
      default: :normal,
      doc: "waiting requests with a higher priority are spoken first; within one priority, callers take turns"
    ],
    sentence_pause: [
      type: {:integer, 0, 60_000},
      default: 250,
      doc: "milliseconds of silence after a sentence, if the text is cut there"
    ],
    paragraph_pause: [
      type: {:integer, 0, 60_000},
      default: 700,
      doc: "milliseconds of silence after a paragraph"
    ],
    unknown_sounds: [
      type: {:in, [:refuse, :drop]},
      default: :refuse,
      doc: "what to do with a sound, such as `[laugh]`, that the model does not have"
    ],
    progress: [
      type: :function,
      doc:
        "a function that the calling process calls with a map after each piece of the text: " <>
          "`:characters` spoken of `:total` (`nil` while the text is still being written), `:pieces`, and `:seconds` of audio"
    ],
    speed: [type: {:number, 0.5, 2.0}, specific: true, doc: "the pace; 1.0 is the voice's own (`:hibari`)"],
    temperature: [
      type: {:number, 0.0, 5.0},
      specific: true,
      doc:
        "how freely the model samples speech tokens; 0 always picks the likeliest; 0.8 by default (all Chatterbox models)"
    ],
    top_p: [
      type: {:number, 0.0, 1.0},
      specific: true,
      doc:
        "sample from the likeliest tokens whose probabilities add up to this; 0.95 by default, 1.0 " <>
          "for `:english` and `:multilingual`"
    ],
    top_k: [
      type: {:integer, 1, 10_000},
      specific: true,
      doc: "sample from this number of the likeliest tokens; 1000 by default (`:turbo`, `:nano`)"
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
      doc: "how strongly the model avoids tokens that it has already spoken; 1.2 by default"
    ],
    cfg_weight: [
      type: {:number, 0.0, 10.0},
      specific: true,
      doc:
        "how closely the model follows the text; 0.5 by default, and 0 halves the work (`:english`, `:multilingual`)"
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
        "the most speech tokens for a piece of text, 25 per second of audio; by default what a slow reader of the " <>
          "piece would need, at most 1000"
    ],
    retries: [
      type: {:integer, 0, 10},
      specific: true,
      doc:
        "how many times to speak a piece again, with another seed, if it is silent or does not end; 2 by default"
    ]
  ]

  @generate Keyword.merge(
              [
                timeout: [
                  type: :timeout,
                  doc:
                    "milliseconds for this request, including the time it waits; the default is the server's"
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
                  "how many pieces of the text to request before the first of them is consumed; the default is " <>
                    "what keeps the model busy"
              ],
              resume: [
                type: :boolean,
                default: false,
                doc:
                  "whether a stream continues if the process of an isolated model dies while speaking it. The sentence is " <>
                    "spoken again with the same seed, without the part that was already sent. `false` ends the stream with `:engine_crashed`"
              ],
              first_chunk_steps: [{:specific, true} | @first_chunk_steps],
              chunk_tokens: [
                type: {:integer, 1, 1000},
                specific: true,
                doc:
                  "speech tokens of the first chunk, 25 per second of audio; 10 by default (all Chatterbox models)"
              ],
              chunk_growth: [
                type: {:number, 1.0, 10.0},
                specific: true,
                doc: "how much larger each further chunk is; 2.0 by default, more if playback would run dry"
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
                 "how many unacknowledged chunks may be on their way; the stream holds further ones back until " <>
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
              doc: "the most characters (graphemes) in a chunk; models begin to garble from about 300"
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
              doc: "milliseconds of silence after a paragraph. The last chunk has no pause."
            ],
            group: [
              type: :boolean,
              default: true,
              doc:
                "whether to group sentences. The model itself makes the pauses between the sentences of one chunk. " <>
                  "With `false` each sentence is a separate chunk, followed by `:sentence_pause`."
            ],
            sounds: [
              type: :sounds,
              default: [],
              doc: "the sounds that the model has, as in `[\"laugh\", \"clear throat\"]`"
            ],
            unknown_sounds: [
              type: {:in, [:refuse, :drop]},
              default: :refuse,
              doc: "what to do with sounds that it does not have"
            ]
          )

  @chunk_stream Keyword.update!(@chunks, :group, &Keyword.put(&1, :default, false))

  @convert @generate
           |> Keyword.take([:timeout, :seed, :deadline, :priority, :reference_seconds, :flow_steps])
           |> Keyword.merge(
             server: [type: :server, doc: "the server to ask, which must run the model `:conversion`"],
             voice: [
               type: :voice,
               doc: "the voice to convert to, as for `Chatterbex.generate/2`; it must be given"
             ]
           )

  @info [server: @request[:server]]

  @await_ready [
    server: @request[:server],
    timeout: [type: :timeout, default: 600_000, doc: "the most milliseconds to wait"]
  ]

  @stop [
    server: [type: :server, doc: "the server to stop; the default is the default server"],
    timeout: [type: :timeout, default: 5_000, doc: "the most milliseconds to wait until it has stopped"]
  ]

  @drain [
    timeout: [type: :timeout, default: 60_000, doc: "the most milliseconds to wait for open requests"]
  ]

  @logger [
    level: [
      type: {:in, [:debug, :info, :notice, :warning, :error]},
      default: :info,
      doc: "the log level; failures are logged at least as warnings"
    ]
  ]

  @test [
    from: [
      type: :asker,
      doc:
        "the process that made the requests, itself or through processes that have it among their `$callers`; `:anyone` " <>
          "matches all processes. The default is the calling process"
    ]
  ]

  @voices [
    server: [
      type: :server,
      doc:
        "the server whose voices to list, those of its model and of its folder; the default is the default server"
    ],
    folder: [type: :folder, doc: "a folder whose voices to list instead, without asking a server"]
  ]

  @clone [
    server: [type: :server, doc: "the server whose model makes the voice; the default is the default server"],
    name: [type: {:string, 200}, doc: "the name of the voice"],
    note: [
      type: {:string, 4000},
      doc: "a note to save with the voice: whose it is, what they agreed to, its licence"
    ],
    norm_loudness: [
      type: :boolean,
      doc:
        "whether to normalise the recording to -27 LUFS before the voice is made; `true` by default (`:turbo`, `:nano`)"
    ],
    timeout: [
      type: :timeout,
      default: 120_000,
      doc: "milliseconds that it may take, including the time to load the model"
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
      doc: "bits per second; for speech in one channel, RFC 6716 recommends 28000 to 40000"
    ]
  ]

  @mp3 [
    bitrate: [
      type: {:integer, 8_000, 320_000},
      default: 64_000,
      doc:
        "bits per second, rounded to a bitrate that MP3 has: at most 160000 below 32000 Hz. From 32000 Hz on it is the " <>
          "mean of a variable bitrate"
    ]
  ]

  @write [
    format: [
      type: {:in, [:wav, :flac, :opus, :mp3]},
      doc:
        "the format to write; the default follows the file extension, `.wav`, `.flac`, `.opus`, `.ogg` or `.mp3`, and is " <>
          "WAV for any other"
    ]
  ]

  @plot [
    format: [type: {:in, [:svg, :png]}, default: :svg, doc: "the kind of picture"],
    show: [
      type: {:in, [:both, :waveform, :spectrogram]},
      default: :both,
      doc: "what to draw; with `:both`, the waveform is on top"
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
        "how many samples the audio may have in all channels together; each takes 4 bytes of memory. The default is " <>
          "enough for an hour in one channel at 48 kHz"
    ]
  ]

  @silence [
    sample_rate: [type: {:integer, 1_000, 768_000}, default: 24_000, doc: "frames per second, in Hz"],
    channels: [type: {:integer, 1, 64}, default: 1, doc: "samples per frame"]
  ]

  @trim [
    threshold: [
      type: {:number, -120, 0},
      default: -50,
      doc: "in dBFS; the sound begins and ends with a sample above it"
    ],
    margin: [
      type: {:integer, 0, 60_000},
      default: 50,
      doc: "milliseconds of the audio to keep before and after the sound, for its onset and decay"
    ]
  ]

  # EBU R128's value for broadcasts.
  @normalize [
    loudness: [
      type: {:number, -70, 0},
      default: -23,
      doc: "the loudness to reach, in LUFS: -23 is EBU R128's; podcasts are mostly at -16 to -19"
    ],
    peak: [
      type: {:number, -30, 0},
      default: -1,
      doc: "how high the true peak may become, in dBTP; audio that would exceed it is made less loud"
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
             doc: "how many times to measure each sentence"
           ],
           max_tokens: @request[:max_tokens],
           timeout: [
             type: :timeout,
             default: 600_000,
             doc: "milliseconds that a sentence may take"
           ],
           progress: [
             type: :function,
             doc: "a function that is called with a line of text at each step"
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
               "a Python that has pocketsphinx; by default the one in the environment that `:install_recogniser` creates"
           ],
           install_recogniser: [
             type: :boolean,
             default: false,
             doc: "whether to create the recogniser's environment, from the package index, if it is missing"
           ],
           progress: [
             type: :function,
             doc: "a function that is called with a line of text at each step"
           ]
         )

  @http [
    server: [type: :server, doc: "the server that speaks; the default server is started on first use"],
    models: [
      type: :named,
      default: %{},
      doc:
        "servers by the names that requests use, as in `%{\"turbo\" => MyApp.Turbo}`; by default one, named after its model"
    ],
    api_key: [
      type: {:string, 1_000},
      doc: "the key that requests must send as `Authorization: Bearer KEY`; by default none is needed"
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
        "whether `POST /v1/audio/voices` makes voices from recordings, and saves them in the server's folder of voices"
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
        "what to do with fields that OpenAI does not have: `:pass` passes `seed`, `temperature` and other options of " <>
          "`Chatterbex.generate/2` on to the model"
    ],
    cors: [
      type: {:string, 1_000},
      doc:
        "the origin of web pages that may call the API, as in `\"https://example.com\"`, or `\"*\"` for all; by default none"
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
                   doc: "the port to listen on; 0 picks a free one"
                 ],
                 ip: [
                   type: {:string, 100},
                   default: "127.0.0.1",
                   doc:
                     "the address to listen on; `\"0.0.0.0\"` and `\"::\"` mean all addresses of the machine"
                 ],
                 max_connections: [
                   type: {:integer, 1, 100_000},
                   default: 512,
                   doc: "how many connections may be open; any further one is answered with 503"
                 ],
                 max_requests: [
                   type: {:integer, 1, 100_000},
                   default: 100,
                   doc: "how many speech requests may run at a time; any further one is answered with 429"
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
                   doc: "milliseconds from the first byte of a request within which all of it must arrive"
                 ],
                 send_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 30_000,
                   doc: "milliseconds within which the client must receive each part of the answer"
                 ],
                 request_timeout: [
                   type: {:integer, 1, 86_400_000},
                   default: 600_000,
                   doc: "milliseconds that one request may take from its arrival to the end of its answer"
                 ],
                 drain_timeout: [
                   type: {:integer, 1, 3_600_000},
                   default: 30_000,
                   doc: "milliseconds that a stopping server gives running requests to finish"
                 ]
               )

  @setup [
    home: [
      type: :nonempty_string,
      doc: "the folder for the environment; the default is `Chatterbex.Python.home/0`"
    ],
    python: [
      type: :nonempty_string,
      doc:
        "the Python to use: a path, a name on PATH, or a version such as `\"3.11\"`; by default the first one found that fits"
    ],
    force: [
      type: :boolean,
      default: false,
      doc: "whether to build everything again. If that fails, the old environment is restored"
    ],
    quiet: [type: :boolean, default: false, doc: "whether to print nothing"],
    device: [
      type: {:in, [:mps, :cuda, :cpu, :auto]},
      doc:
        "also installs PyTorch, which the Chatterbox models need, for this device; `:auto` is the best device of the machine. " <>
          "A device that the machine does not have, or that does not work, is not an error: PyTorch is then set up for the " <>
          "CPU, and a line says why. By default what is installed stays; `:auto` if you give one of the following options"
    ],
    torch: [
      type: :version,
      doc:
        "a version of PyTorch other than the locked one. It comes from the index, and its hashes are not checked"
    ],
    models: [
      type: :names,
      default: [],
      doc:
        "models whose files to fetch too: `english`, `multilingual`, `turbo`, `nano`, `conversion`, as atoms or strings"
    ],
    languages: [
      type: :names,
      default: [],
      doc: "ISO 639-1 codes of languages whose extra packages to install"
    ],
    report: [
      type: :function,
      doc:
        "a function that is called with each line, instead of printing it to stderr. There is one for each step that has ended"
    ]
  ]

  @groups [
    setup: @setup,
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
  def describe(:nonempty_string), do: "a string that is not empty"
  def describe(:version), do: ~s(a version such as "2.7.1")
  def describe(:names), do: "a list of names"
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
  Formats a value for a message, never longer than a line.
  """
  @spec show(term) :: String.t()
  def show(value), do: value |> inspect(limit: 5, printable_limit: 60) |> String.slice(0, 120)
end
