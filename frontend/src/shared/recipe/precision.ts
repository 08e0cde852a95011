/** Precision in one choice: the combinations of three words that have names of their own. */
import { withWord } from './set'
import { WORD, type Words } from './words'

export const PRECISIONS = {
  bf16: {},
  mixed: { weights_dtype: 'float32' },
  'pure-bf16': { autocast: null, adapter_dtype: 'bfloat16' },
  fp32: { weights_dtype: 'float32', autocast: null },
} as const satisfies Record<string, Words>

export type Precision = keyof typeof PRECISIONS

export const PRECISION_WORDS = ['weights_dtype', 'autocast', 'adapter_dtype'] as const

const valueOf = (words: Words, name: string): unknown => (name in words ? words[name] : WORD.get(name)!.default)
const keyOf = (words: Words): string => JSON.stringify(PRECISION_WORDS.map((name) => valueOf(words, name)))

/** The name of these words' precision; null where it has none. */
export function precisionOf(words: Words): Precision | null {
  const key = keyOf(words)
  return (Object.keys(PRECISIONS) as Precision[]).find((name) => keyOf(PRECISIONS[name]) === key) ?? null
}

export function withPrecision(words: Words, name: Precision): Words {
  const chosen: Words = PRECISIONS[name]
  return PRECISION_WORDS.reduce((now, word) => {
    const row = WORD.get(word)!
    return withWord(now, row, word in chosen ? chosen[word]! : row.default)
  }, words)
}
