/** From measured points to what a chart draws: positions on the axes, curves with their gaps, and the noise band. */
import type { Mode, Point, Row, Value } from './types'

export type View = 'ratio' | 'roofline'

export interface Dot {
  /** Index of the point's value among all values of the axis. */
  index: number
  y: number
  low: number | null
  high: number | null
}

export interface Curve {
  id: string
  dots: Dot[]
}

/** PEFT's form of each mode: what most people run today. */
export const USUAL: Record<Mode, string> = { forward: 'eager', training: 'eager', adapters: 'loop_adapters' }
const COMPANION: Record<Mode, string> = { forward: 'merged', training: 'full_gradient', adapters: 'loop_requests' }
const REFERENCES = ['dense', 'dense_again']

/** The variants that were measured anywhere, in the order of the API; the reference itself is the line at 1. */
export function measured(points: readonly Point[], view: View): { id: string; name: string }[] {
  const found = new Map<string, string>()
  for (const point of points)
    for (const row of point.rows)
      if (row.ratio && (view === 'roofline' || !REFERENCES.includes(row.id))) found.set(row.id, row.name)
  return [...found].map(([id, name]) => ({ id, name }))
}

/** What a chart shows before anybody chose: PEFT's form, the recommended ways, and one to hold them against. */
export function usualChoice(points: readonly Point[], mode: Mode): string[] {
  const wins = new Map<string, number>()
  for (const point of points)
    if (point.recommendation) wins.set(point.recommendation.variant, (wins.get(point.recommendation.variant) ?? 0) + 1)
  const best = [...wins]
    .sort((a, b) => b[1] - a[1])
    .slice(0, 2)
    .map(([id]) => id)
  const ids = new Set(measured(points, 'ratio').map((item) => item.id))
  return [...new Set([USUAL[mode], ...best, COMPANION[mode]])].filter((id) => ids.has(id))
}

function dot(row: Row, index: number, view: View): Dot | null {
  if (!row.ratio) return null
  if (view === 'ratio') return { index, y: row.ratio.median, low: row.ratio.q1, high: row.ratio.q3 }
  return row.roofline_fraction == null ? null : { index, y: row.roofline_fraction, low: null, high: null }
}

export function curves(
  points: readonly Point[],
  values: readonly Value[],
  ids: readonly string[],
  view: View,
): Curve[] {
  return ids.map((id) => ({
    id,
    dots: points
      .flatMap((point) => {
        const row = point.rows.find((item) => item.id === id)
        const index = values.indexOf(point.value ?? '')
        const found = row && index >= 0 ? dot(row, index, view) : null
        return found ? [found] : []
      })
      .sort((a, b) => a.index - b.index),
  }))
}

/** The quartiles of dense ÷ its second copy, point by point. */
export function noiseBand(points: readonly Point[], values: readonly Value[]): Dot[] {
  return points
    .flatMap((point) => {
      const index = values.indexOf(point.value ?? '')
      return point.noise && index >= 0
        ? [{ index, y: point.noise.median, low: point.noise.q1, high: point.noise.q3 }]
        : []
    })
    .sort((a, b) => a.index - b.index)
}

/** Dots as runs without a gap: a line must not bridge a measured point at which the variant did not run. */
export function unbroken(dots: readonly Dot[], measuredAt: readonly number[]): Dot[][] {
  const order = [...measuredAt].sort((a, b) => a - b)
  const runs: Dot[][] = []
  for (const item of dots) {
    const last = runs.at(-1)
    const before = last?.at(-1)
    if (last && before && order.indexOf(item.index) - order.indexOf(before.index) === 1) last.push(item)
    else runs.push([item])
  }
  return runs
}
