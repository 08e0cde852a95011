/** What a run says in one line. */
import type { Point } from './types'

export interface PointVerdict {
  kind: 'point'
  variant: string
  name: string
  ratio: number
  noise: number | null
  /** Whether the difference from dense is larger than the noise. */
  resolved: boolean
  candidates: number | null
  ties: number | null
  predicted: string | null
}

export interface SweepVerdict {
  kind: 'sweep'
  variant: string
  name: string
  low: number
  high: number
  wins: number
  points: number
}

/** Half the width of the noise floor around 1: the larger of its quartiles' distances. */
export function noiseOf(point: Pick<Point, 'noise'>): number | null {
  return point.noise ? Math.max(Math.abs(point.noise.q1 - 1), Math.abs(point.noise.q3 - 1)) : null
}

export function pointVerdict(point: Point): PointVerdict | null {
  const best = point.recommendation
  if (!best || best.ratio == null) return null
  const noise = noiseOf(point)
  return {
    kind: 'point',
    variant: best.variant,
    name: best.name,
    ratio: best.ratio,
    noise,
    resolved: noise === null || Math.abs(best.ratio - 1) > noise,
    candidates: best.candidates ?? null,
    ties: best.ties ?? null,
    predicted: best.predicted ?? null,
  }
}

/** One point speaks for itself; several are told by their range and by who wins most of them. */
export function verdictOf(points: readonly Point[]): PointVerdict | SweepVerdict | null {
  const each = points.flatMap((point) => pointVerdict(point) ?? [])
  if (points.length < 2 || each.length < 2) return each[0] ?? null
  const wins = new Map<string, number>()
  for (const item of each) wins.set(item.variant, (wins.get(item.variant) ?? 0) + 1)
  const [variant, count] = [...wins].sort((a, b) => b[1] - a[1])[0]!
  const ratios = each.map((item) => item.ratio)
  return {
    kind: 'sweep',
    variant,
    name: each.find((item) => item.variant === variant)!.name,
    low: Math.min(...ratios),
    high: Math.max(...ratios),
    wins: count,
    points: points.length,
  }
}

export interface Doubt {
  code: string
  /** At how many points it was seen, and the values of the worst. */
  count: number
  values: Record<string, number | string>
  text: string
}

/** What the points warn of, each kind once: how often, and at its worst. Runs of older versions know only the text. */
export function doubts(points: readonly Point[]): Doubt[] {
  const found = new Map<string, Doubt>()
  for (const point of points) {
    const remarks = point.remarks?.length
      ? point.remarks
      : point.warnings.map((text) => ({ code: '', values: {}, text }))
    for (const remark of remarks) {
      const key = remark.code || remark.text
      const known = found.get(key)
      const values = remark.values ?? {}
      if (!known) found.set(key, { code: remark.code, count: 1, values, text: remark.text })
      else found.set(key, { ...known, count: known.count + 1, values: worse(remark.code, known.values, values) })
    }
  }
  return [...found.values()]
}

type Values = Record<string, number | string>

function worse(code: string, a: Values, b: Values): Values {
  const size = (values: Values): number => {
    if (code === 'noisy') return Math.max(Math.abs(Number(values.q1) - 1), Math.abs(Number(values.q3) - 1))
    if (code === 'few_rounds') return -Number(values.rounds)
    return Number(Object.values(values)[0] ?? 0)
  }
  return size(b) > size(a) ? b : a
}
