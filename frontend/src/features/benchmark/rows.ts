/** The rows of one point, fastest first, and how long their bars are. */
import { isPlain } from './useVariants'
import type { Point, Progress, Row } from './types'

export interface Bar {
  id: string
  name: string
  plain: boolean
  median: number
  q1: number | null
  q3: number | null
  row: Row | null
}

export function barsOf(point: Point): Bar[] {
  return point.rows
    .flatMap((row) =>
      row.available && row.ratio
        ? [
            {
              id: row.id,
              name: row.name,
              plain: isPlain(row.id),
              median: row.ratio.median,
              q1: row.ratio.q1,
              q3: row.ratio.q3,
              row,
            },
          ]
        : [],
    )
    .sort((a, b) => a.median - b.median)
}

/** Medians so far of the point that is being measured. */
export function liveBars(progress: Progress | null, names: ReadonlyMap<string, string>): Bar[] {
  return Object.entries(progress?.ratios ?? {})
    .filter(([, median]) => median > 0)
    .map(([id, median]) => ({
      id,
      name: names.get(id) ?? id,
      plain: isPlain(id),
      median,
      q1: null,
      q3: null,
      row: null,
    }))
}

const LEAST = 1.25
const MOST = 2.5

/** Where the bars end: a way that takes thirty times as long must not flatten all others, so its bar is cut. */
export const reach = (bars: readonly Bar[]): number =>
  Math.min(MOST, Math.max(LEAST, ...bars.map((bar) => (bar.q3 ?? bar.median) * 1.02)))

/** The largest of a row's errors: output and, when training, gradients; null if none was taken. */
export function worstError(row: Row): number | null {
  const all = [row.error, ...Object.values(row.gradient_errors ?? {})].filter(
    (value): value is number => typeof value === 'number',
  )
  return all.length > 0 ? Math.max(...all) : null
}
