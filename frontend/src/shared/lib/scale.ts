/** A linear axis: positions and round tick values. */

import { formatDecimal, type Locale } from './format'

export type Scale = (value: number) => number

export function linear(domain: readonly [number, number], range: readonly [number, number]): Scale {
  const span = domain[1] - domain[0] || 1
  return (value) => range[0] + ((value - domain[0]) / span) * (range[1] - range[0])
}

/** Ticks at 1, 2 or 5 times a power of ten, from zero up to at most `max`. */
export function ticks(max: number, count: number): number[] {
  if (!(max > 0)) return [0]
  const rough = max / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, index) => index * step)
}

/** A tick's number as other numbers are written, with the decimals that it has. */
export function tickText(value: number, locale: Locale): string {
  const plain = String(Number(value.toPrecision(6)))
  return formatDecimal(value, plain.split('.')[1]?.length ?? 0, locale)
}
