/** How the variants are named and drawn: each keeps its colour, dash and mark whatever else is shown. */
import { useLocale } from '@/shared/i18n'
import type { Mode } from './types'

export interface Look {
  colour: string
  dash: string
  mark: 'circle' | 'square' | 'triangle' | 'diamond'
}

/** Those that compute no adapter are red, as everywhere on the page. */
const PLAIN = ['full_gradient', 'dense', 'dense_again', 'packed_dense', 'packed_touch', 'graph_dense']
const USUAL = ['eager', 'loop_adapters']
const ORDER = [
  'addmm',
  'merged',
  'packed_addmm',
  'peft',
  'own',
  'packed_epilogue',
  'packed_hint16',
  'packed_float32',
  'compiled',
  'wrong_order',
  'peft_same_dtype',
  'graph_addmm',
  'triton_split',
]
const BATCH = [
  'stacked_mask',
  'loop_requests',
  'packed_stacked',
  'gather_bmm',
  'own', // at its place among the others: one way, one look
  'grouped_mm',
  'packed_stacked_epilogue',
  'merge_switch',
  'peft_mixed',
]
const COLOURS = ['var(--lora)', 'var(--violet)', 'var(--gain)', 'var(--teal)', 'var(--slate)', 'var(--ink)']
const DASHES = ['none', '10 3 2 3', '2 4', '5 3', '1 3']
const MARKS = ['circle', 'triangle', 'diamond'] as const

export const isPlain = (id: string): boolean => PLAIN.includes(id)

export function lookOf(id: string): Look {
  if (isPlain(id))
    return {
      colour: 'var(--full)',
      dash: id.startsWith('full') ? 'none' : id.startsWith('dense') ? '3 3' : '9 3',
      mark: 'diamond',
    }
  if (USUAL.includes(id)) return { colour: 'var(--base)', dash: '7 4', mark: 'square' }
  const index = [BATCH, ORDER].find((ids) => ids.includes(id))?.indexOf(id) ?? ORDER.length
  return {
    colour: COLOURS[index % COLOURS.length]!,
    dash: DASHES[index % DASHES.length]!,
    mark: MARKS[(index + Math.floor(index / COLOURS.length)) % MARKS.length]!,
  }
}

/** An outline around a point, of about the same area for every mark. */
export function markPath(mark: Look['mark'], x: number, y: number, size = 4): string {
  const at = (dx: number, dy: number): string => `${(x + dx * size).toFixed(1)} ${(y + dy * size).toFixed(1)}`
  if (mark === 'square') return `M${at(-0.9, -0.9)}L${at(0.9, -0.9)}L${at(0.9, 0.9)}L${at(-0.9, 0.9)}Z`
  if (mark === 'triangle') return `M${at(0, -1.25)}L${at(1.15, 0.85)}L${at(-1.15, 0.85)}Z`
  if (mark === 'diamond') return `M${at(0, -1.3)}L${at(1.3, 0)}L${at(0, 1.3)}L${at(-1.3, 0)}Z`
  return `M${at(-1, 0)}A${size} ${size} 0 1 1 ${at(1, 0)}A${size} ${size} 0 1 1 ${at(-1, 0)}Z`
}

/** The name in the reader's language; a variant that this page does not know keeps the API's name. */
export function useVariantName(): (row: { id: string; name: string }, mode: Mode) => string {
  const { t, te } = useLocale()
  return (row, mode) => {
    const frozen = `benchmark.frozen.${row.id}`
    if (mode === 'training' && te(frozen)) return t(frozen)
    const key = `benchmark.variant.${row.id}`
    return te(key) ? t(key) : row.name
  }
}
