/** Scales of the benchmark's charts: sizes double along x, ratios may spread over a decade along y. */
import { linear, ticks, type Scale } from '@/shared/lib/scale'
import type { Dot } from './curves'
import type { Value } from './types'

/** Where each value of an axis lies between 0 and 1: by its logarithm when all are numbers, else evenly. */
export function positions(values: readonly Value[]): number[] {
  if (values.length < 2) return values.map(() => 0.5)
  const numbers = values.filter((value): value is number => typeof value === 'number' && value > 0)
  if (numbers.length < values.length) return values.map((_, index) => index / (values.length - 1))
  const [low, high] = [Math.log(Math.min(...numbers)), Math.log(Math.max(...numbers))]
  return high === low
    ? values.map((_, index) => index / (values.length - 1))
    : numbers.map((value) => (Math.log(value) - low) / (high - low))
}

/** Which labels can stand beside each other: the first and last always, the others where they leave room. */
export function roomFor(centres: readonly number[], widths: readonly number[], gap = 6): boolean[] {
  const shown = centres.map(() => false)
  const order = centres
    .map((_, index) => index)
    .sort((a, b) => Number(b === 0 || b === centres.length - 1) - Number(a === 0 || a === centres.length - 1) || a - b)
  for (const index of order) {
    const free = centres.every(
      (centre, other) =>
        !shown[other] || Math.abs(centre - centres[index]!) >= (widths[index]! + widths[other]!) / 2 + gap,
    )
    if (free) shown[index] = true
  }
  return shown
}

export interface RatioScale {
  log: boolean
  domain: [number, number]
  ticks: number[]
  scale: (range: readonly [number, number]) => Scale
}

const LOG_FROM = 3
const ROUND = [1, 1.5, 2, 3, 5, 7]

/** Ratios with 1 always in sight; logarithmic once they spread over more than threefold. */
export function ratioScale(dots: readonly Dot[]): RatioScale {
  const all = [1, ...dots.flatMap((item) => [item.low ?? item.y, item.high ?? item.y, item.y])].filter(
    (value) => value > 0 && Number.isFinite(value),
  )
  let [low, high] = [Math.min(...all), Math.max(...all)]
  if (high / low > LOG_FROM) {
    const domain: [number, number] = [low / 1.06, high * 1.06]
    const marks = [-2, -1, 0, 1, 2]
      .flatMap((power) => ROUND.map((digit) => digit * 10 ** power))
      .filter((tick) => tick >= domain[0] && tick <= domain[1])
    const every = Math.ceil(marks.length / 7)
    const one = marks.indexOf(1)
    const logs: [number, number] = [Math.log(domain[0]), Math.log(domain[1])]
    return {
      log: true,
      domain,
      ticks: marks.filter((_, index) => (index - one) % every === 0),
      scale: (range) => (value) => linear(logs, range)(Math.log(value)),
    }
  }
  const pad = Math.max(0.02, (high - low) * 0.08)
  low -= pad
  high += pad
  const step = ticks(high - low, 5)[1] ?? 0.1
  const from = Math.ceil(low / step - 1e-9)
  const marks = Array.from(
    { length: Math.floor(high / step + 1e-9) - from + 1 },
    (_, index) => Math.round((from + index) * step * 1e6) / 1e6,
  )
  return { log: false, domain: [low, high], ticks: marks, scale: (range) => linear([low, high], range) }
}

/** A fraction: from nothing to all of it. */
export const fractionScale = (): RatioScale => ({
  log: false,
  domain: [0, 1],
  ticks: [0, 0.25, 0.5, 0.75, 1],
  scale: (range) => linear([0, 1], range),
})
