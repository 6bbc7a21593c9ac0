/** What a player does: nothing, wait for sound, play, or wait until the browser lets it (somebody must use the page). */
export type State = "idle" | "waiting" | "playing" | "blocked"

export interface PlayerOptions {
  /** The context to play in. The default is one of the player's own, at the rate of the device. */
  context?: AudioContext
  /** Called with every new state. */
  onstate?: (state: State) => void
}

export interface SpeechOptions<About = unknown> {
  /** Samples per second of what is pushed. Where the device has another rate, the player resamples without a seam. */
  sampleRate: number
  /** Called when a part begins to sound, with its number, from 0, and what `push` was told about it. */
  onplaying?: (part: number, about: About) => void
  /** Called when a part was played to its end. Send acknowledgements from here. */
  onplayed?: (part: number, about: About) => void
  /** Called once: when all was played, or when the speech was stopped. */
  onended?: (how: "ended" | "stopped") => void
}

/** One speech of a player. */
export interface Speech<About = unknown> {
  /**
   * Plays samples of one channel after those before. Integers are 16-bit samples; bytes are 16-bit little-endian samples
   * and may be cut anywhere. The samples are copied. After `end` and `stop` it does nothing.
   */
  push(samples: Float32Array | Int16Array | Uint8Array | ArrayBuffer, about?: About): void
  /** Says that nothing more comes. What was pushed is played to its end. */
  end(): void
  /** Fades out at once, within 5 ms. */
  stop(): void
  /** How the speech ended, once it has. */
  readonly done: Promise<"ended" | "stopped">
}

/**
 * Plays speech while it arrives, without gaps.
 *
 *     const player = new Player()
 *     const speech = player.begin({sampleRate: 24000})
 *     speech.push(samples)
 *     speech.end()
 *     await speech.done
 *
 * Make it when the page loads: it then lets the browser play with the first click or key, and sound that comes earlier
 * waits for that.
 */
export class Player {
  constructor(options?: PlayerOptions)
  readonly state: State
  /** The context that it plays in; `null` until it is needed. */
  readonly context: AudioContext | null
  /** Begins a speech. The one before it is stopped. */
  begin<About = unknown>(options: SpeechOptions<About>): Speech<About>
  /** Stops the speech, if there is one. */
  stop(): void
  /** Asks the browser to let the player sound. Call it where somebody clicks "Play". */
  resume(): Promise<void>
  /** Stops, and gives the audio device back. */
  close(): Promise<void>
}

/** The hook of `Chatterbex.LiveView`: `new LiveSocket("/live", Socket, {hooks: {Chatterbex}})`. */
export const Chatterbex: {mounted(): void} & Record<string, any>
