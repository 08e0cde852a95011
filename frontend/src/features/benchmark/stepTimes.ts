/** Timed steps in the order in which they are shown, and a machine's rates as text. */
import type { Schemas } from '@/shared/api/client'
import { formatDecimal, formatSeconds, type Locale } from '@/shared/lib/format'
import { rate } from './figures'

export type TimedStep = Schemas['TimedCase']
type Calibration = Schemas['Calibration']

/** The longest first: what a reader's own steps are nearest to. */
export const bySize = (steps: readonly TimedStep[]): TimedStep[] =>
  [...steps].sort((a, b) => b.measured_seconds - a.measured_seconds)

/** By which share the computed time is longer than the measured one. */
export const offBy = (step: TimedStep): number => step.computed_seconds / step.measured_seconds - 1

type Links = NonNullable<Calibration['links']>

/** What the links of a machine reach, and what a message waits before. */
export const linkTexts = (found: Links, locale: Locale) =>
  (['all_reduce', 'all_gather'] as const).map((kind) => ({
    kind,
    rate: rate(found[kind].bytes_per_second, 'B/s', (value) => formatDecimal(value, value >= 10 ? 1 : 2, locale)),
    latency: formatSeconds(found[kind].latency_seconds, locale),
  }))

export function rateTexts(found: Calibration, locale: Locale): { name: string; text: string }[] {
  const three = (value: number): string => formatDecimal(value, value >= 100 ? 0 : value >= 10 ? 1 : 2, locale)
  return [
    { name: 'products', text: rate(found.flops_per_second, 'FLOP/s', three) },
    { name: 'attention', text: rate(found.attention_flops_per_second, 'FLOP/s', three) },
    { name: 'memory', text: rate(found.bytes_per_second, 'B/s', three) },
    { name: 'unpacking', text: rate(found.weights_per_second, '/s', three) },
    { name: 'kernel', text: formatSeconds(found.kernel_seconds, locale) },
  ]
}
