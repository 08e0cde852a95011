/** Turns a change that the API advises into the page's own settings: every word of the recipe is one of them. */
import { METHODS, type Method, type Part2Settings } from '@/shared/url/part2Query'
import { setWord } from './set'
import { readText, textOf, WORD, type Json } from './words'

/** A larger rank has parameters, and nothing that anybody trains with. */
export const LARGEST_RANK = 512

export interface FieldChange {
  field: string
  to: unknown
}

const isMethod = (value: unknown): value is Method => METHODS.includes(value as Method)

export function canApply({ field, to }: FieldChange): boolean {
  if (field === 'method') return isMethod(to)
  const word = WORD.get(field)
  return word !== undefined && readText(word, textOf(to as Json)) !== undefined
}

export function applyChange(settings: Part2Settings, { field, to }: FieldChange): void {
  if (field === 'method' && isMethod(to)) settings.method = to
  else if (field === 'gpu') settings.gpu = String(to)
  else if (WORD.has(field)) setWord(settings, field, to as Json)
}

/** As many of the same GPU, with everything sharded. */
export const severalGpus = ({ gpus, strategy }: Record<string, unknown>): FieldChange[] => [
  { field: 'gpus', to: gpus },
  { field: 'strategy', to: strategy },
]
