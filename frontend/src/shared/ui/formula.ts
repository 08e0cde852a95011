/** Which number was opened. One dialog on the page shows what lies behind it. */
import { inject, provide, shallowRef, type InjectionKey, type ShallowRef } from 'vue'
import type { Category } from '@/shared/api/plan'

export type FormulaTopic =
  | { kind: 'memory'; method: string; category?: Category; title: string }
  | { kind: 'parameters'; method: string; title: string }
  | { kind: 'storage'; method: string; title: string }
  | {
      kind: 'ratio'
      title: string
      top: { label: string; text: string }
      bottom: { label: string; text: string }
      result: string
      note: string
    }
  | { kind: 'text'; title: string; lines: string[]; basis: 'computed' | 'measured' | 'traced' | 'assumption' }

const KEY: InjectionKey<{ topic: ShallowRef<FormulaTopic | null>; open: (topic: FormulaTopic) => void }> =
  Symbol('formula')

export function provideFormula(): { topic: ShallowRef<FormulaTopic | null>; open: (topic: FormulaTopic) => void } {
  const topic = shallowRef<FormulaTopic | null>(null)
  const api = {
    topic,
    open: (next: FormulaTopic) => {
      topic.value = next
    },
  }
  provide(KEY, api)
  return api
}

export function useFormula(): { open: (topic: FormulaTopic) => void } {
  const api = inject(KEY)
  if (!api) throw new Error('useFormula needs provideFormula above it')
  return api
}
