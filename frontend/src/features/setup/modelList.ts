/** The models to choose from: found by what was typed, in groups by size or by family, small ones first. */
import type { ModelRow } from '@/shared/api/client'

export type Grouping = 'size' | 'family'
export interface ModelGroup {
  /** A family, or the ends of a range of parameters; the last has no upper end. */
  family?: string
  from?: number
  to?: number
  rows: ModelRow[]
}

const ENDS = [1e9, 4e9, 1e10, 2e10, 4e10, 1e11, Infinity] as const

/** `8b` is a size: not the end of `28b`. Any other piece may stand anywhere. */
const isIn = (text: string, piece: string): boolean =>
  /^\d/.test(piece) ? new RegExp(`(^|[^\\d.])${piece.replaceAll('.', '\\.')}`).test(text) : text.includes(piece)

export function findModels(models: readonly ModelRow[], query: string): ModelRow[] {
  const pieces = query
    .toLowerCase()
    .replaceAll(/[^\p{L}\d.\-_/]+/gu, ' ')
    .trim()
    .split(' ')
    .filter(Boolean)
  return models.filter((row) => {
    const text = [row.name, row.id, row.hf_id, row.family, row.publisher, ...row.aliases].join(' ').toLowerCase()
    return pieces.every((piece) => isIn(text, piece))
  })
}

const bySize = (a: ModelRow, b: ModelRow): number => a.parameters - b.parameters || a.name.localeCompare(b.name)

export function groupModels(models: readonly ModelRow[], by: Grouping): ModelGroup[] {
  const sorted = [...models].sort(bySize)
  if (by === 'family') {
    const families = [...new Set(sorted.map((row) => row.family))].sort()
    return families.map((family) => ({ family, rows: sorted.filter((row) => row.family === family) }))
  }
  const ranges = ENDS.map((to, index) => {
    const from = index === 0 ? 0 : ENDS[index - 1]!
    return { from, to, rows: sorted.filter(({ parameters }) => parameters >= from && parameters < to) }
  })
  return ranges.filter(({ rows }) => rows.length)
}
