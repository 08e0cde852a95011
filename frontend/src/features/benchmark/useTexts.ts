/** Sentences about a run, in the reader's language, from the codes and values of the API. */
import { useLocale } from '@/shared/i18n'
import { formatBytes, formatDecimal, formatInteger, formatPercent, formatSeconds, inWords } from '@/shared/lib/format'
import { readable, whole } from './figures'
import { reasonOf } from './reasons'
import { useVariantName } from './useVariants'
import type { Axis, Mode, Remark, Request, Skipped, Value } from './types'
import type { Doubt, PointVerdict, SweepVerdict } from './verdict'

export interface Texts {
  ratio: (value: number) => string
  percent: (share: number) => string
  /** "64 tokens", "float32". */
  at: (axis: Axis | null, value: Value | null) => string
  value: (value: Value) => string
  /** "1, 4, 16". */
  list: (values: readonly Value[]) => string
  /** A number by its name in the API, with its unit. */
  fact: (name: string, value: number) => string
  verdict: (verdict: PointVerdict | SweepVerdict, mode: Mode) => string
  doubt: (doubt: Doubt) => string
  skipped: (item: Skipped) => string
  /** Why a variant did not run; null where only the API's English says it. */
  reason: (text: string) => string | null
  clock: (text: string) => string
  /** A planned time. */
  about: (seconds: number) => string
  machine: (facts: Record<string, unknown>) => string
  when: (seconds: number) => string
  what: (request: Request) => string
}

export function useTexts(): Texts {
  const { t, te, locale } = useLocale()
  const nameOf = useVariantName()
  const ratio = (value: number): string =>
    `${formatDecimal(value, value >= 10 ? 1 : value >= 2 ? 2 : 3, locale.value)}×`
  const times = (value: number): string => inWords(ratio(value), locale.value)
  const percent = (share: number): string => whole(formatPercent(100 * share, locale.value))
  const value = (item: Value): string => (typeof item === 'number' ? formatInteger(item, locale.value) : item)
  function at(axis: Axis | null, item: Value | null): string {
    if (axis === null || item === null) return ''
    return t(`benchmark.at.${axis}`, { n: value(item) }, Number(item))
  }

  function verdict(found: PointVerdict | SweepVerdict, mode: Mode): string {
    const name = nameOf({ id: found.variant, name: found.name }, mode)
    if (found.kind === 'sweep')
      return t('benchmark.verdict.sweep', {
        name,
        low: times(found.low),
        high: times(found.high),
        wins: found.wins,
        points: found.points,
      })
    if (!found.resolved)
      return t('benchmark.verdict.same', { name, ratio: times(found.ratio), noise: percent(found.noise ?? 0) })
    return t(found.ratio < 1 ? 'benchmark.verdict.less' : 'benchmark.verdict.more', {
      name,
      ratio: times(found.ratio),
      percent: percent(Math.abs(found.ratio - 1)),
    })
  }

  /** Planned times are estimates: no digits that nobody knows. */
  const about = (seconds: number): string =>
    formatSeconds(seconds >= 10 ? Math.round(seconds) : seconds, locale.value).replace(/[.]0+(?=\s)/, '')
  const withUnits = (values: Record<string, number | string>): Record<string, string> =>
    readable(values, {
      seconds: about,
      bytes: (n) => formatBytes(n, locale.value),
      number: (n) => formatDecimal(n, Number.isInteger(n) ? 0 : 2, locale.value),
    })

  function remark(found: Pick<Remark, 'code' | 'values' | 'text'>, group: 'doubt' | 'skip'): string {
    const key = group === 'doubt' ? `benchmark.doubt.${found.code}` : `benchmark.skip.${found.code}`
    if (!found.code || !te(key)) return found.text
    return t(key, withUnits(found.values ?? {}), Number(found.values?.rounds))
  }

  return {
    ratio,
    percent,
    value,
    list: (values) => values.map(value).join(locale.value === 'en' ? ', ' : '、'),
    fact: (name, number) =>
      name.endsWith('_bytes')
        ? formatBytes(number, locale.value)
        : Number.isInteger(number)
          ? formatInteger(number, locale.value)
          : String(number),
    at,
    verdict,
    about,
    doubt: (found) => remark(found, 'doubt'),
    skipped: (item) => (item.remark ? remark(item.remark, 'skip') : item.reason),
    reason(text) {
      const found = reasonOf(text)
      return found && t(`benchmark.why.${found.key}`, withUnits(found.values))
    },
    clock(text) {
      const threads = /^wall clock, (\d+) threads$/.exec(text)?.[1]
      if (threads) return t('benchmark.clock.wall', Number(threads))
      const known: Record<string, string> = {
        'CPU time of one thread': t('benchmark.clock.cpu'),
        'CUDA events': t('benchmark.clock.cuda'),
        'wall clock, synchronized': t('benchmark.clock.sync'),
      }
      return known[text] ?? text
    },
    machine(facts) {
      const said = (name: string, text: (fact: string) => string = String): string[] =>
        typeof facts[name] === 'string' || typeof facts[name] === 'number' ? [text(String(facts[name]))] : []
      return [
        ...said('name'),
        ...said('cores', (n) => t('benchmark.cores', Number(n))),
        ...said('capability'),
        ...said('torch', (version) => `PyTorch ${version}`),
        ...said('platform'),
        ...said('load_average', (n) => t('benchmark.load', { n })),
      ].join('\u00a0· ')
    },
    when: (seconds) =>
      new Intl.DateTimeFormat(locale.value, {
        month: 'short',
        day: 'numeric',
        hour: '2-digit',
        minute: '2-digit',
      }).format(seconds * 1000),
    what(asked) {
      const axis = asked.sweep?.axis ?? null
      const swept = asked.sweep?.values
      const parts = [t(`benchmark.mode.${asked.mode ?? 'forward'}`)]
      if (axis)
        parts.push(
          swept?.length
            ? t('benchmark.history.what', {
                axis: t(`benchmark.axis.${axis}`),
                from: value(swept[0]!),
                to: value(swept.at(-1)!),
              })
            : t(`benchmark.axis.${axis}`),
        )
      if (axis !== 'tokens') parts.push(at('tokens', asked.tokens ?? 0))
      if (axis !== 'rank') parts.push(at('rank', asked.rank ?? 0))
      if (axis !== 'width') parts.push(`${value(asked.out_features ?? 0)} × ${value(asked.in_features ?? 0)}`)
      if (axis !== 'dtype') parts.push(asked.dtype ?? '')
      return parts.join('\u00a0· ')
    },
  }
}
