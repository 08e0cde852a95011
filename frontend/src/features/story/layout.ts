/** Where each tensor lies in the picture: rows are places of the model, lengths are bytes, one scale for all methods. */
import type { Life } from './lives'

/** Which part of a row, in the order of `CATEGORIES`, a tensor lies in; what a step allocates and releases again shares the last one. */
const PARTS = 4
const partOf = (life: Life, index: number): number => Math.min(PARTS, life.turned[index]!)

/**
 * Beginning of each tensor within its row, in bytes. Kinds lie side by side: weights, adapter, states, gradients, the rest;
 * within a kind those that live longest lie first, and no two that are alive together overlap.
 */
export function packed(life: Life, places: number): { offset: Float64Array; extent: Float64Array } {
  const offset = new Float64Array(life.count)
  const extent = new Float64Array(places)
  const rows: number[][][] = Array.from({ length: places }, () => Array.from({ length: PARTS + 1 }, () => []))
  for (let index = 0; index < life.count; index++) rows[life.place[index]!]![partOf(life, index)]!.push(index)
  const span = (index: number): number => life.death[index]! - life.birth[index]!
  rows.forEach((parts, place) => {
    let from = 0
    for (const part of parts) {
      const placed: number[] = []
      let end = from
      for (const index of part.sort((a, b) => span(b) - span(a) || a - b)) {
        let at = from
        let slot = placed.length
        for (let k = 0; k < placed.length; k++) {
          const other = placed[k]!
          if (life.death[other]! < life.birth[index]! || life.death[index]! < life.birth[other]!) continue
          if (offset[other]! >= at + life.bytes[index]!) {
            slot = k
            break
          }
          at = Math.max(at, offset[other]! + life.bytes[other]!)
        }
        offset[index] = at
        if (slot === placed.length) slot = placed.findIndex((other) => offset[other]! > at)
        placed.splice(slot < 0 ? placed.length : slot, 0, index)
        end = Math.max(end, at + life.bytes[index]!)
      }
      from = end
    }
    extent[place] = from
  })
  return { offset, extent }
}

export interface Row {
  y: number
  lines: number
}

export interface Geometry {
  /** Bytes of a CSS pixel of a line's length. */
  scale: number
  /** Length of a line, and its height with the gap below it. */
  side: number
  line: number
  gap: number
  rows: Row[]
}

/** Lines as long as the side: a layer has one, what needs more has several, so that an area is always the same number of bytes. */
export function geometry(extents: readonly number[], side: number, height: number): Geometry {
  const sorted = [...extents].sort((a, b) => a - b)
  const usual = sorted[Math.floor(0.8 * (sorted.length - 1))] || 1
  // So many lines at most: where head and loss are all the model, a layer's line is shorter.
  const most = Math.max(1.6 * extents.length, 24)
  let scale = usual / side
  const linesAt = (): number[] => extents.map((extent) => Math.max(1, Math.ceil(extent / (scale * side) - 1e-9)))
  const count = (): number => linesAt().reduce((sum, lines) => sum + lines, 0)
  while (count() > most) scale *= 1.03
  const line = height / count()
  let y = 0
  const rows = linesAt().map((lines) => {
    const row = { y, lines }
    y += lines * line
    return row
  })
  return { scale, side, line, gap: line > 6 ? 1.5 : line > 3.5 ? 1 : 0.4, rows }
}

/** A tensor's pieces, one for each line it reaches into: line from the row's first, beginning and length in pixels. */
export function pieces(place: Geometry, offset: number, bytes: number): { line: number; x: number; width: number }[] {
  const found = []
  let at = offset / place.scale
  const end = (offset + bytes) / place.scale
  while (end - at > 1e-6) {
    const line = Math.floor(at / place.side + 1e-9)
    const stop = Math.min(end, (line + 1) * place.side)
    found.push({ line, x: at - line * place.side, width: stop - at })
    at = stop
  }
  return found
}
