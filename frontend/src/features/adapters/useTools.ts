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

  /** What was asked for last: the answer about files that were taken away, or to another question, comes too late. */
  let turn = 0

  function clear(): void {
    turn += 1
    busy.value = false
    for (const made of [merged, madePlain, converted]) if (made.value) URL.revokeObjectURL(made.value.address)
    problem.value = diagnosis.value = comparison.value = null
    merged.value = madePlain.value = converted.value = null
  }
  onScopeDispose(clear)

  /** Takes what the server answered, with what keeps it; a file gets its address only then. */
  async function taking(action: Action, response: Response, to: string | undefined): Promise<() => void> {
    if (action === 'doctor' || action === 'compare') {
      const found: unknown = await response.json()
      if (action === 'doctor') return () => (diagnosis.value = found as Diagnosis)
      return () => (comparison.value = found as Comparison)
    }
    const blob = await response.blob()
    const ready = <T>(file: string): Ready<T> => ({
      report: JSON.parse(response.headers.get('x-report') ?? '{}') as T,
      address: URL.createObjectURL(blob),
      file,
    })
    if (action === 'merge') return () => (merged.value = ready('merged.zip'))
    if (action === 'plain') return () => (madePlain.value = ready('plain.zip'))
    return () => (converted.value = ready(`${to ?? 'converted'}.zip`))
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
      const mine = turn
      busy.value = true
      try {
        const query = new URLSearchParams(words).toString()
        const response = await post(`/api/adapters/${action}?${query}`, formOf(adapters, config))
        const take = await taking(action, response, words.to)
        if (mine === turn) take()
      } catch (error) {
        if (mine === turn) problem.value = asProblem(error)
      } finally {
        if (mine === turn) busy.value = false
      }
    },
  }
}
