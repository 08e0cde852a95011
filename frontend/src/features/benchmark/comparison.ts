/** Counting and wording of a comparison that the API made. */
import type { Comparison } from './types'

type ComparedRow = Comparison['points'][number]['rows'][number]
type Difference = NonNullable<Comparison['changed']>[number]

/** A translation, or null where there is none. */
type Word = (key: string) => string | null
/** A number of that name with its unit. */
type Fact = (name: string, value: number) => string

export function tally(rows: readonly Pick<ComparedRow, 'verdict'>[]): { faster: number; slower: number; same: number } {
  const count = (verdict: string): number => rows.filter((row) => row.verdict === verdict).length
  return { faster: count('faster'), slower: count('slower'), same: count('same') }
}

/** How far the bars reach from no change: enough for the largest change and for the noise, at least 5%, at most 100%. */
export function changeReach(rows: readonly Pick<ComparedRow, 'change'>[], noise: number): number {
  return Math.min(
    1,
    Math.max(0.05, noise * 1.25, ...rows.map((row) => (row.change === null ? 0 : Math.abs(row.change - 1) * 1.1))),
  )
}

/** A value of a setting in few words: a sweep is its axis and its values. */
function said(name: string, value: unknown, word: Word, unset: string, fact: Fact): string {
  if (value === null || value === undefined) return unset
  if (typeof value === 'object' && 'axis' in value) {
    const sweep = value as { axis: string; values: unknown[] | null }
    const values = sweep.values?.map((item) => (typeof item === 'number' ? fact('', item) : String(item)))
    return [word(`benchmark.axis.${sweep.axis}`) ?? sweep.axis, values?.join(word('unit.comma') ?? ', ')]
      .filter(Boolean)
      .join(' ')
  }
  if (typeof value === 'string') return word(`benchmark.mode.${value}`) ?? word(`benchmark.cache.${value}`) ?? value
  if (typeof value === 'number') return fact(name, value)
  return Array.isArray(value) ? value.join(', ') : String(value)
}

/** Each difference as the words of a sentence; `word` answers null for a key that has no translation. */
export function differenceTexts(
  changed: readonly Difference[],
  word: Word,
  unset: string,
  fact: Fact,
): { name: string; a: string; b: string }[] {
  return changed.map((item) => ({
    name: word(`benchmark.setting.${item.name}`) ?? item.name,
    a: said(item.name, item.a, word, unset, fact),
    b: said(item.name, item.b, word, unset, fact),
  }))
}
