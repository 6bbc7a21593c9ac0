// Plays speech while it arrives: see `Player`. `Chatterbex` is the hook of `Chatterbex.LiveView`.

// What is to sound next. It runs where the browser makes sound: as source text in an AudioWorklet, so it uses nothing
// from outside itself.
class Tape {
  constructor(rate, report) {
    this.report = report
    this.fade = Math.ceil(rate / 200)
    this.lead = Math.ceil(rate / 25)
    this.sounding = false
    this.tail = null
    this.clear()
  }

  clear() {
    this.id = null
    this.parts = []
    this.at = 0
    this.queued = 0
    this.waited = 0
    this.flowing = false
    this.ended = false
  }

  take(message) {
    if (message.begin) {
      this.cut()
      this.id = message.begin
    } else if (message.id !== this.id) {
      return
    } else if (message.samples) {
      this.parts.push(message)
      this.queued += message.samples.length
    } else if (message.end) {
      this.ended = true
    } else {
      this.cut()
    }
  }

  // Fades out within 5 ms, since a sudden end clicks.
  cut() {
    if (this.sounding && !this.tail) {
      const tail = new Float32Array(this.fade)
      const count = this.fill(tail, 0, () => {})
      for (let n = 0; n < count; n++) tail[n] *= 1 - (n + 1) / this.fade
      if (count > 0) this.tail = tail.subarray(0, count)
    }
    this.clear()
  }

  // After silence it waits until 40 ms of sound are there, and no longer than 40 ms: small parts that come late would
  // stutter.
  flows(samples) {
    if (this.parts.length > 0 && !this.flowing) {
      this.waited += samples
      this.flowing = this.queued >= this.lead || this.waited > this.lead
    }
    return this.flowing || this.ended
  }

  // Fills `out` with the next samples, and with silence where there are none yet.
  read(out) {
    let filled = 0
    if (this.tail) {
      filled = Math.min(out.length, this.tail.length)
      out.set(this.tail.subarray(0, filled))
      this.tail = filled < this.tail.length ? this.tail.subarray(filled) : null
    }
    if (this.flows(out.length)) filled = this.fill(out, filled, this.report)
    out.fill(0, filled)
    this.sounding = filled > 0
  }

  fill(out, filled, report) {
    while (this.parts.length > 0) {
      const {samples, part} = this.parts[0]
      if (filled === out.length && samples.length > 0) return filled
      if (this.at === 0) report({id: this.id, playing: part})
      const count = Math.min(out.length - filled, samples.length - this.at)
      out.set(samples.subarray(this.at, this.at + count), filled)
      filled += count
      this.at += count
      this.queued -= count
      if (this.at === samples.length) {
        report({id: this.id, played: part})
        this.parts.shift()
        this.at = 0
      }
    }
    this.flowing = false
    this.waited = 0
    if (this.ended) {
      report({id: this.id, ended: true})
      this.clear()
    }
    return filled
  }
}

const worklet = `
const Tape = ${Tape}
registerProcessor("chatterbex", class extends AudioWorkletProcessor {
  constructor() {
    super()
    this.open = true
    this.tape = new Tape(sampleRate, message => this.port.postMessage(message))
    this.port.onmessage = ({data}) => {
      if (data.close) this.open = false
      else this.tape.take(data)
    }
  }
  process(_inputs, [[out]]) {
    this.tape.read(out)
    return this.open
  }
})`

// One address for all players: a context runs a module once for each.
let workletAddress

// Where sound is made: {node, post}. Pages without HTTPS have no AudioWorklet, and a content security policy may forbid it:
// there the page's own thread does the work.
async function output(context, report) {
  try {
    if (!workletAddress) workletAddress = URL.createObjectURL(new Blob([worklet], {type: "text/javascript"}))
    await context.audioWorklet.addModule(workletAddress)
    const node = new AudioWorkletNode(context, "chatterbex", {numberOfInputs: 0, outputChannelCount: [1]})
    node.port.onmessage = ({data}) => report(data)
    return {node, post: (message, moved) => node.port.postMessage(message, moved)}
  } catch (_noWorklet) {
    const node = context.createScriptProcessor(2048, 1, 1)
    const tape = new Tape(context.sampleRate, report)
    node.onaudioprocess = ({outputBuffer}) => tape.read(outputBuffer.getChannelData(0))
    return {node, post: message => message.close || tape.take(message)}
  }
}

// Changes the sample rate of sound that comes in parts, without a seam between them: a windowed sinc, with the filter
// of each phase computed once.
class Resampler {
  constructor(from, to) {
    const divisor = common(from, to)
    this.up = to / divisor
    this.down = from / divisor
    this.cutoff = Math.min(1, to / from)
    this.half = Math.ceil(24 / this.cutoff)
    this.filters = new Map()
    this.phase = 0
    this.at = this.half - 1
    this.input = new Float32Array(this.at)
  }

  // What can be computed by now: the last samples wait for those that follow them.
  process(samples) {
    const input = new Float32Array(this.input.length + samples.length)
    input.set(this.input)
    input.set(samples, this.input.length)

    const room = input.length - this.half - this.at
    const out = new Float32Array(Math.max(0, Math.ceil((room * this.up - this.phase) / this.down)))
    for (let n = 0; n < out.length; n++) {
      const filter = this.filter(this.phase)
      const first = this.at - this.half + 1
      let sum = 0
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * input[first + tap]
      out[n] = sum
      this.phase += this.down
      this.at += Math.floor(this.phase / this.up)
      this.phase %= this.up
    }

    const done = this.at - this.half + 1
    this.input = input.slice(done)
    this.at -= done
    return out
  }

  finish() {
    return this.process(new Float32Array(this.half))
  }

  filter(phase) {
    if (!this.filters.has(phase)) {
      const filter = Float64Array.from({length: 2 * this.half}, (_, tap) => {
        const distance = tap - this.half + 1 - phase / this.up
        return sinc(distance * this.cutoff) * kaiser(distance / this.half)
      })
      const sum = filter.reduce((total, weight) => total + weight, 0)
      this.filters.set(phase, filter.map(weight => weight / sum))
    }
    return this.filters.get(phase)
  }
}

function common(a, b) {
  return b === 0 ? a : common(b, a % b)
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x)
}

// Kaiser's window, about 90 dB down outside the band.
function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel(9 * Math.sqrt(1 - x * x)) / bessel(9)
}

function bessel(x) {
  let sum = 1
  let term = 1
  for (let n = 1; n < 40; n++) {
    term *= (x / (2 * n)) ** 2
    sum += term
  }
  return sum
}

// One speech of a `Player`: what `Player.begin` returns.
class Speech {
  constructor(player, id, {sampleRate, onplaying, onplayed, onended}) {
    this.player = player
    this.id = id
    this.handlers = {onplaying, onplayed, onended}
    this.parts = []
    this.count = 0
    this.odd = new Uint8Array(0)
    this.open = true
    const to = player.context.sampleRate
    this.resampler = sampleRate === to ? null : new Resampler(sampleRate, to)
    this.done = new Promise(resolve => { this.resolve = resolve })
  }

  push(samples, about) {
    if (!this.open) return
    this.parts.push(about)
    const floats = this.floats(samples)
    this.send(this.resampler ? this.resampler.process(floats) : floats)
  }

  end() {
    if (!this.open) return
    this.open = false
    if (this.resampler) this.send(this.resampler.finish())
    this.player.post({id: this.id, end: true})
  }

  stop() {
    if (this.finish("stopped")) this.player.post({id: this.id, stop: true})
  }

  send(samples) {
    this.player.post({id: this.id, part: this.count++, samples}, [samples.buffer])
  }

  // A copy, which is handed over to the thread that plays it. Bytes may be cut anywhere, also within a sample.
  floats(samples) {
    if (samples instanceof Float32Array) return samples.slice()
    if (!(samples instanceof Int16Array)) {
      const bytes = samples instanceof ArrayBuffer ? new Uint8Array(samples) : samples
      const all = new Uint8Array(this.odd.length + bytes.length)
      all.set(this.odd)
      all.set(bytes, this.odd.length)
      const whole = all.length - all.length % 2
      this.odd = all.slice(whole)
      const view = new DataView(all.buffer)
      return Float32Array.from({length: whole / 2}, (_, n) => view.getInt16(2 * n, true) / 32768)
    }
    return Float32Array.from(samples, sample => sample / 32768)
  }

  hear({playing, played, ended}) {
    const {onplaying, onplayed} = this.handlers
    // The last part is of the resampler, and has nothing to tell.
    if (playing < this.parts.length && onplaying) onplaying(playing, this.parts[playing])
    if (played < this.parts.length && onplayed) onplayed(played, this.parts[played])
    if (ended) this.finish("ended")
  }

  finish(how) {
    if (this.player.speech !== this) return false
    this.open = false
    this.player.speech = null
    this.player.show()
    this.resolve(how)
    if (this.handlers.onended) this.handlers.onended(how)
    return true
  }
}

const gestures = ["click", "pointerup", "touchend", "keydown"]

export class Player {
  constructor({context, onstate} = {}) {
    this.given = context
    this.context = context || null
    this.onstate = onstate
    this.state = "idle"
    this.speech = null
    this.begun = 0
    this.waiting = []
    this.output = null
    this.ready = null
    this.closed = false
    this.patience = 0
    this.wake = () => this.resume()
    this.return = () => { if (this.speech && !document.hidden) this.resume() }
    this.showState = () => this.show()
    for (const gesture of gestures) document.addEventListener(gesture, this.wake, {capture: true, passive: true})
    document.addEventListener("visibilitychange", this.return)
  }

  begin(options) {
    if (this.closed) throw new Error("the player is closed")
    if (this.speech) this.speech.finish("stopped")
    this.start()
    const speech = new Speech(this, ++this.begun, options)
    this.speech = speech
    this.post({begin: speech.id})
    this.resume()
    // A context that may run takes a moment to do so.
    this.patience = performance.now() + 250
    setTimeout(this.showState, 260)
    this.show()
    return speech
  }

  stop() {
    if (this.speech) this.speech.stop()
  }

  async resume() {
    if (this.closed) return
    this.start()
    // The promise stays open until somebody uses the page, where the browser asks for that.
    if (this.context.state !== "running") await this.context.resume().catch(() => {})
  }

  async close() {
    if (this.closed) return
    this.stop()
    this.closed = true
    this.post({close: true})
    for (const gesture of gestures) document.removeEventListener(gesture, this.wake, {capture: true})
    document.removeEventListener("visibilitychange", this.return)
    if (this.output) this.output.node.disconnect()
    if (!this.context) return
    this.context.removeEventListener("statechange", this.showState)
    if (!this.given) await this.context.close()
  }

  start() {
    if (this.ready) return
    if (!this.context) this.context = new AudioContext()
    this.context.addEventListener("statechange", this.showState)
    this.ready = output(this.context, message => this.hear(message)).then(made => {
      this.output = made
      if (this.closed) return made.post({close: true})
      made.node.connect(this.context.destination)
      for (const [message, moved] of this.waiting) made.post(message, moved)
      this.waiting = []
    })
  }

  post(message, moved = []) {
    if (this.output) this.output.post(message, moved)
    else this.waiting.push([message, moved])
  }

  hear(message) {
    const speech = this.speech
    if (!speech || message.id !== speech.id) return
    if (message.playing === 0) this.heard = speech.id
    speech.hear(message)
    this.show()
  }

  show() {
    const state = this.current()
    if (state === this.state) return
    this.state = state
    if (this.onstate) this.onstate(state)
  }

  current() {
    if (!this.speech) return "idle"
    if (this.context.state !== "running" && performance.now() > this.patience) return "blocked"
    return this.heard === this.speech.id ? "playing" : "waiting"
  }
}

// The hook of `Chatterbex.LiveView`'s component `speech`.
export const Chatterbex = {
  mounted() {
    this.speech = null
    this.number = null
    this.player = new Player({onstate: state => this.showState(state)})
    this.part = name => this.el.querySelector(`[data-chatterbex="${name}"]`)
    this.el.addEventListener("click", ({target}) => {
      if (target.closest('[data-chatterbex="stop"]')) this.stop()
    })
    this.handleEvent("chatterbex:" + this.el.id, message => this.hear(message))
  },

  // The page's process is another one now, and the speech ended with the old one. What has arrived is still heard.
  reconnected() {
    this.number = null
    if (this.speech) this.speech.end()
    else this.waiting(false)
  },

  destroyed() {
    this.player.close()
  },

  hear({op, speech, rate, pcm, text}) {
    if (op === "begin") {
      this.player.stop()
      this.number = speech
      this.speech = null
      this.waiting(true)
    } else if (op === "stop" || (op === "end" && speech === this.number && !this.speech)) {
      this.stop()
    } else if (speech === this.number && op === "part") {
      if (!this.speech) this.speech = this.begin(speech, rate)
      this.speech.push(bytes(pcm), text)
    } else if (speech === this.number) {
      this.speech.end()
    }
  },

  begin(number, rate) {
    return this.player.begin({
      sampleRate: rate,
      onplaying: (_part, text) => this.caption(text),
      onplayed: part => this.tell("played", {speech: number, part}),
      onended: () => {
        this.speech = null
        this.caption("")
        this.tell("ended", {speech: number})
      }
    })
  },

  stop() {
    this.waiting(false)
    if (this.speech) this.player.stop()
    else if (this.number) this.tell("ended", {speech: this.number})
    this.number = null
  },

  tell(event, payload) {
    this.pushEvent("chatterbex:" + event, Object.assign({player: this.el.id}, payload), () => {})
  },

  caption(text) {
    const caption = this.part("caption")
    if (caption && typeof text === "string") caption.textContent = text
  },

  waiting(yes) {
    if (this.player.state === "idle") this.showState(yes ? "waiting" : "idle")
  },

  showState(state) {
    const frame = this.part("player")
    frame.dataset.state = state
    for (const [name, shown] of [["stop", state !== "idle"], ["resume", state === "blocked"]]) {
      const button = this.part(name)
      if (button) button.hidden = !shown
    }
  }
}

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64)
  const text = atob(base64)
  const out = new Uint8Array(text.length)
  for (let n = 0; n < text.length; n++) out[n] = text.charCodeAt(n)
  return out
}
