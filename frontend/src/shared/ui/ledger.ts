/**
 * The words of a ledger in the reader's language. The API names terms, regimes and assumptions in English, in pieces that
 * are put together with colons and commas; each piece has a row in the table. Names of parameters are not words.
 */
import { i18n } from '@/shared/i18n'
import { joined } from '@/shared/i18n/joined'
import type { Locale } from '@/shared/lib/format'
import chinese from './ledger.zh-CN.json'

const LABELS: Record<string, string> = chinese.labels
/** Why a word has no effect. */
const REASONS: Record<string, string> = chinese.reasons
const SOURCES: Record<string, string> = chinese.sources
const IDLE = /^without effect on memory: (.+) \((.+)\)$/
const ASSUMPTIONS = chinese.assumptions.map(([pattern, text]) => [new RegExp(`^${pattern!}$`), text!] as const)

/** A piece as it stands in the table, or its own pieces where only those do. */
function piece(text: string): string {
  const found = LABELS[text]
  if (found !== undefined) return found
  const parts = text.split(', ')
  return parts.length > 1 ? parts.map((part) => LABELS[part] ?? part).join('，') : text
}

/** An optimizer's states are labelled by its word; the page calls it as its field does. */
function optimizerOr(text: string): string {
  const key = `choice.optimizer.${text}`
  return i18n.global.te(key) ? i18n.global.t(key) : text
}

export function labelIn(locale: Locale, text: string): string {
  const pieces = text.split(': ').map(optimizerOr)
  return locale === 'en' ? pieces.join(': ') : pieces.map(piece).join('：')
}

export const regimeIn = (locale: Locale, text: string): string =>
  locale === 'en' ? text : text.split(', ').map(piece).join('，')

export const reasonIn = (locale: Locale, text: string): string => (locale === 'en' ? text : (REASONS[text] ?? text))

/** Where the rule behind a term comes from. */
export const sourceIn = (locale: Locale, text: string): string =>
  locale === 'en' ? text : (SOURCES[text] ?? text.replace(/^traced: /, '跟踪：'))

export function assumptionIn(locale: Locale, text: string): string {
  if (locale === 'en') return joined(text)
  const [, words, reason] = IDLE.exec(text) ?? []
  if (words !== undefined) return `对显存没有影响：${words.replaceAll(', ', '、')}（${reasonIn(locale, reason!)}）`
  const found = ASSUMPTIONS.find(([pattern]) => pattern.test(text))
  return joined(found ? text.replace(found[0], found[1]) : text)
}

/** The sum of formulas such as `16,384·B·S + 512`, like products added up, the largest factor first. */
export function sumOf(formulas: readonly string[]): string {
  const sums = new Map<string, number>()
  for (const term of formulas.flatMap((formula) => formula.split(' + '))) {
    const [factor, ...symbols] = term.split('·')
    const key = symbols.join('·')
    sums.set(key, (sums.get(key) ?? 0) + Number(factor!.replaceAll(',', '')))
  }
  return [...sums]
    .filter(([, factor]) => factor !== 0)
    .sort(([a, x], [b, y]) => b.length - a.length || y - x)
    .map(([symbols, factor]) => [factor.toLocaleString('en'), ...(symbols ? [symbols] : [])].join('·'))
    .join(' + ')
}

export interface Held {
  parameters: number
  bytes: number
}

/** `6,738,415,616 × 2 B`: weights as numbers of values of one size; null where that is not the whole of `bytes`. */
export function countedOf(rows: readonly Held[], bytes: number): string | null {
  const sizes = new Map<number, number>()
  for (const row of rows) {
    if (row.parameters === 0) continue
    const size = row.bytes / row.parameters
    sizes.set(size, (sizes.get(size) ?? 0) + row.parameters)
  }
  const counted = [...sizes].reduce((sum, [size, count]) => sum + size * count, 0)
  const rest = bytes - counted
  if (sizes.size === 0 || rest < 0 || rest > 0.01 * bytes || [...sizes.keys()].some((size) => !Number.isInteger(size)))
    return null
  const parts = [...sizes].map(([size, count]) => `${count.toLocaleString('en')} × ${size} B`)
  return [...parts, ...(rest > 0 ? [`${rest.toLocaleString('en')} B`] : [])].join(' + ')
}
