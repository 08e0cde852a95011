/** Words of a text that light up their part of a picture: which part is lit, shared by the text and the picture beside it. */
import { computed, inject, provide, ref, type ComputedRef, type InjectionKey, type Ref } from 'vue'

export interface Lit {
  /** What the pointer or the focus rests on. */
  touched: Ref<string | null>
  /** What was pressed and stays lit. */
  pressed: Ref<string | null>
  /** What a step of a walk-through shows. */
  stepped: Ref<string | null>
  part: ComputedRef<string | null>
}

const KEY: InjectionKey<Lit> = Symbol('lit')

export function provideLit(): Lit {
  const [touched, pressed, stepped] = [ref<string | null>(null), ref<string | null>(null), ref<string | null>(null)]
  const lit = { touched, pressed, stepped, part: computed(() => touched.value ?? pressed.value ?? stepped.value) }
  provide(KEY, lit)
  return lit
}

export function useLit(): Lit {
  const lit = inject(KEY)
  if (!lit) throw new Error('useLit needs provideLit above it')
  return lit
}

// Private-use characters: no message contains them.
const [OPEN, CLOSE] = ['\uE000', '\uE001']

/** Stands in a message where a word shall become a button: `t('matrix.lead', marks(['a', 'b']))`. */
export const marks = (parts: readonly string[]): Record<string, string> =>
  Object.fromEntries(parts.map((part) => [part, OPEN + part + CLOSE]))

export type Piece = { text: string } | { part: string }

/** A formatted message cut at its marks. */
export function pieces(message: string): Piece[] {
  return message.split(OPEN).flatMap((run, index): Piece[] => {
    if (index === 0) return run ? [{ text: run }] : []
    const [part, rest] = run.split(CLOSE) as [string, string]
    return rest ? [{ part }, { text: rest }] : [{ part }]
  })
}
