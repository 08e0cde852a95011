/** What is done with adapters that are dropped here: examined, compared, merged, made plain, converted. Nothing is kept. */
import { onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import type { Problem, Schemas } from '@/shared/api/client'
import { post } from '@/shared/api/form'
import { formOf, type Given } from './forms'
import { asProblem } from './useAdapters'

export type Diagnosis = Schemas['DiagnosisAnswer']
export type Comparison = Schemas['ComparisonAnswer']
export const ACTIONS = ['doctor', 'compare', 'merge', 'plain', 'convert'] as const
export type Action = (typeof ACTIONS)[number]
/** How many adapters each takes, at least and at most. */
export const TAKES: Record<Action, readonly [number, number]> = {
  doctor: [1, 1],
  compare: [2, 2],
  merge: [2, 8],
  plain: [2, 2],
  convert: [1, 1],
}
export const FORMATS = ['peft', 'mlx', 'kohya', 'diffusers', 'torchtune'] as const
export const ENGINES = ['peft', 'vllm', 'sglang', 'llama.cpp', 'mlx'] as const
/** PEFT's combination types; those that end in svd may be given a rank. */
export const COMBINATIONS = [
  'svd',
  'cat',
  'linear',
  'ties',
  'ties_svd',
  'dare_linear',
  'dare_linear_svd',
  'dare_ties',
  'dare_ties_svd',
  'magnitude_prune',
  'magnitude_prune_svd',
] as const

export interface MergeReport {
  rank: number
  relative_error: number
  modules: number
  notes: string[]
  file_bytes: number
}
export interface PlainReport {
  began: string
  rank: number
  modules: number
  moved: number
  notes: string[]
  file_bytes: number
}
export interface ConvertReport {
  source: string
  target: string
  modules: number
  exact: boolean
  largest_error: number
  notes: string[]
  file_bytes: number
}
/** A file that the server answered, ready to be saved. */
export interface Ready<T> {
  report: T
  address: string
  file: string
}

export interface Tools {
  busy: Ref<boolean>
  problem: Ref<Problem | null>
  diagnosis: Ref<Diagnosis | null>
  comparison: Ref<Comparison | null>
  merged: Ref<Ready<MergeReport> | null>
  madePlain: Ref<Ready<PlainReport> | null>
  converted: Ref<Ready<ConvertReport> | null>
  clear: () => void
  run: (
    action: Action,
    adapters: readonly Given[],
    words: Record<string, string>,
    config: string | null,
  ) => Promise<void>
}

export function useTools(): Tools {
  const busy = ref(false)
  const problem = shallowRef<Problem | null>(null)
  const diagnosis = shallowRef<Diagnosis | null>(null)
  const comparison = shallowRef<Comparison | null>(null)
  const merged = shallowRef<Ready<MergeReport> | null>(null)
  const madePlain = shallowRef<Ready<PlainReport> | null>(null)
  const converted = shallowRef<Ready<ConvertReport> | null>(null)

  function clear(): void {
    for (const made of [merged, madePlain, converted]) if (made.value) URL.revokeObjectURL(made.value.address)
    problem.value = diagnosis.value = comparison.value = null
    merged.value = madePlain.value = converted.value = null
  }
  onScopeDispose(clear)

  async function ready<T>(response: Response, file: string): Promise<Ready<T>> {
    const report = JSON.parse(response.headers.get('x-report') ?? '{}') as T
    return { report, address: URL.createObjectURL(await response.blob()), file }
  }

  return {
    busy,
    problem,
    diagnosis,
    comparison,
    merged,
    madePlain,
    converted,
    clear,
    async run(action, adapters, words, config) {
      clear()
      busy.value = true
      try {
        const query = new URLSearchParams(words).toString()
        const response = await post(`/api/adapters/${action}?${query}`, formOf(adapters, config))
        if (action === 'doctor') diagnosis.value = (await response.json()) as Diagnosis
        else if (action === 'compare') comparison.value = (await response.json()) as Comparison
        else if (action === 'merge') merged.value = await ready(response, 'merged.zip')
        else if (action === 'plain') madePlain.value = await ready(response, 'plain.zip')
        else converted.value = await ready(response, `${words.to ?? 'converted'}.zip`)
      } catch (error) {
        problem.value = asProblem(error)
      } finally {
        busy.value = false
      }
    },
  }
}
