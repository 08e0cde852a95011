/** The race as it was run: the medians so far, kept at each message of the server, few enough to be walked through. */
export type Ratios = Readonly<Record<string, number>>

export const MOST = 240

export interface Recording {
  /** Every `stride`-th message. */
  frames: readonly Ratios[]
  stride: number
  seen: number
  last: Ratios | null
}

export const EMPTY: Recording = { frames: [], stride: 1, seen: 0, last: null }

/** With one message more. When there are too many, every second one goes, and fewer are kept from then on: all of the run stays evenly covered. */
export function recorded(so: Recording, next: Ratios): Recording {
  const frames = so.seen % so.stride === 0 ? [...so.frames, next] : so.frames
  const full = frames.length > MOST
  return {
    frames: full ? frames.filter((_, index) => index % 2 === 0) : frames,
    stride: full ? 2 * so.stride : so.stride,
    seen: so.seen + 1,
    last: next,
  }
}

/** The frames to walk through; the end of the run is always one of them. */
export const framesOf = (recording: Recording): readonly Ratios[] =>
  recording.last === null || recording.frames.at(-1) === recording.last
    ? recording.frames
    : [...recording.frames, recording.last]

export interface Runner {
  id: string
  ratio: number
}

/** Who leads at a frame: the least time relative to dense first. */
export function standing(frame: Ratios | undefined, count: number): Runner[] {
  return Object.entries(frame ?? {})
    .filter(([, ratio]) => ratio > 0)
    .map(([id, ratio]) => ({ id, ratio }))
    .sort((a, b) => a.ratio - b.ratio)
    .slice(0, count)
}
