/** An adapter's two files, looked into by the server on this machine; kept there only when it is to be resized. */
import { computed, ref, shallowRef, type ComputedRef, type Ref } from 'vue'
import { ApiError, request, type Problem, type Schemas } from '@/shared/api/client'
import { post } from '@/shared/api/form'
import { formOf } from './forms'
import { asProblem } from './useAdapters'

export interface ModuleReport {
  module: string
  rank: number
  in_features: number
  out_features: number
  singular_values: number[]
  effective_rank: number
  energy_by_rank: number[]
  rank_for_energy: number
  norm: number
}
export interface Report {
  id: string | null
  rank: number
  alpha: number
  ranks: number[]
  target_modules: string[] | string
  dtype: string
  parameters: number
  file_bytes: number
  effective_rank: number
  energy_by_rank: number[]
  shrink: { energy: number; rank: number; kept: number; parameters: number; bytes: number; mixed_bytes: number }
  modules: ModuleReport[]
  notes: string[]
}
/** An adapter of a type that has no LoRA spectrum. */
export type Identified = Schemas['IdentifiedAnswer']
export interface Resized {
  id: string
  rank: number
  relative_error: number
  bytes_before: number
  bytes: number
  file_bytes: number
}
export interface Pair {
  config: File
  weights: File
}

/** The two files of an adapter among what was dropped (a folder's files, or the files themselves). */
export function pairOf(files: readonly File[]): Pair | null {
  const config = files.find((file) => file.name === 'adapter_config.json')
  const weights =
    files.find((file) => file.name === 'adapter_model.safetensors') ??
    files.find((file) => file.name.endsWith('.safetensors'))
  return config && weights ? { config, weights } : null
}

async function send<T>(path: string, pair: Pair): Promise<T> {
  const response = await post(path, formOf([{ name: '', id: null, ...pair }]))
  return (await response.json()) as T
}

export interface Inspector {
  report: Ref<Report | null>
  identified: Ref<Identified | null>
  resized: Ref<Resized | null>
  problem: Ref<Problem | null>
  busy: Ref<boolean>
  /** The server has its files, or they were given here. */
  resizable: ComputedRef<boolean>
  look: (path: string) => Promise<void>
  drop: (files: readonly File[], incomplete: string) => Promise<void>
  resize: (rank: number) => Promise<void>
}

export function useInspector(): Inspector {
  const report = shallowRef<Report | null>(null)
  const identified = shallowRef<Identified | null>(null)
  const resized = shallowRef<Resized | null>(null)
  const problem = shallowRef<Problem | null>(null)
  const busy = ref(false)
  const pair = shallowRef<Pair | null>(null)
  /** What was asked for last: the answer to anything before it comes too late. */
  let turn = 0

  /** `work` gives what to do with its answer, done only if nothing else was asked for meanwhile. */
  async function during(work: () => Promise<() => void>): Promise<void> {
    const mine = (turn += 1)
    busy.value = true
    problem.value = null
    resized.value = null
    try {
      const taken = await work()
      if (mine === turn) taken()
    } catch (error) {
      if (mine === turn) problem.value = asProblem(error)
    } finally {
      if (mine === turn) busy.value = false
    }
  }
  /** Another adapter: nothing of the one before stands under its name. */
  function begin(files: Pair | null): void {
    report.value = identified.value = null
    pair.value = files
  }

  return {
    report,
    identified,
    resized,
    problem,
    busy,
    resizable: computed(() => report.value !== null && (report.value.id !== null || pair.value !== null)),
    look: (path) =>
      during(async () => {
        begin(null)
        const found = await request<Report>('GET', path)
        return () => (report.value = found)
      }),
    drop: (files, incomplete) =>
      during(async () => {
        const given = pairOf(files)
        begin(given)
        if (!given) throw new ApiError({ title: incomplete, status: 422, detail: incomplete })
        const answer = await send<Report | Identified>('/api/adapters/inspect', given)
        return () => {
          if ('peft_type' in answer) identified.value = answer
          else report.value = answer
        }
      }),
    resize: (rank) =>
      during(async () => {
        const [now, files] = [report.value, pair.value]
        const kept = now?.id === null && files ? await send<Report>('/api/adapters/uploads', files) : now
        if (!kept?.id) return () => undefined
        const made = await request<Resized>('POST', `/api/adapters/kept/${kept.id}/resize`, { rank })
        return () => {
          report.value = kept
          resized.value = made
        }
      }),
  }
}
