/** The server's hub: its state, and everything that changes it. What is shown is what the last answer said. */
import { useQuery, useQueryClient } from '@tanstack/vue-query'
import { computed, ref, shallowRef, watch, type ComputedRef, type Ref } from 'vue'
import { ApiError, OfflineError, request, type Problem } from '@/shared/api/client'
import { useRunEvents, type RunEvents } from '@/shared/api/useRunEvents'
import type { Locale } from '@/shared/lib/format'

export type Way = 'index' | 'pointer' | 'file' | 'merge'
export const WAYS: readonly Way[] = ['index', 'pointer', 'file', 'merge']

export interface HubAdapter {
  name: string
  title: string
  title_zh: string
  rank: number
  alpha: number
  parameters: number
  file_bytes: number
  active: boolean
  held_out: { requests: number; right: number } | null
}
/** What it is called in the reader's language. */
export const titleOf = (adapter: HubAdapter, locale: Locale): string =>
  locale === 'en' ? adapter.title : adapter.title_zh

export interface Timing {
  way: string
  median_seconds: number
  best_seconds: number
  low_seconds: number
  high_seconds: number
  samples: number
  reload_ratio: number | null
}
export interface Drift {
  dtype: string
  switches: number
  in_place: number
  from_copy: number
  base_restored: number
}
export interface Measured {
  modules: number
  base_bytes: number
  adapter_bytes: number
  threads: number
  base?: string
  timings: Timing[]
  drift: Drift[]
}
export interface HubState {
  status: 'ready' | 'not_trained'
  preset: string | null
  bases: string[]
  examples: { request: string; prompt: string }[]
  kept: { id: string; label: string; source: 'upload' | 'registry'; file_bytes: number }[]
  base: { name: string; parameters: number; file_bytes: number; sha256: string } | null
  adapters: HubAdapter[]
  active: string | null
  way: Way | null
  storage: { base_bytes: number; adapters_bytes: number; shared_bytes: number; separate_bytes: number } | null
  last_switch: { adapter: string | null; way: Way; seconds: number } | null
  measured: Measured | null
  /** Ids of jobs that wait or run: a reader who comes back follows them on. */
  training: string | null
  measuring: string | null
}
export interface Verified {
  distinct_outputs: number
  adapters: number
  returns_bit_for_bit: boolean
  base_unchanged: boolean
  base_sha256: string
}

export interface Adapters {
  state: ComputedRef<HubState | undefined>
  problem: Ref<Problem | null>
  busy: Ref<boolean>
  training: RunEvents
  trained: Ref<{ stage: string; fraction: number } | null>
  bench: RunEvents
  benched: Ref<Measured | null>
  verified: Ref<Verified | null>
  train: () => Promise<void>
  measureLarge: () => Promise<void>
  act: <T>(path: string, body?: unknown, method?: 'POST' | 'DELETE') => Promise<T | null>
  refresh: () => Promise<void>
}

export const asProblem = (error: unknown): Problem =>
  error instanceof ApiError
    ? error.problem
    : { title: 'offline', status: 0, code: error instanceof OfflineError ? 'offline' : undefined }

/** Base, six adapters and a check of their answers, one after the other; the base takes longest. */
const STAGES = 8

/** `ready`: whether the server can load adapters at all. */
export function useAdapters(ready: Ref<boolean>): Adapters {
  const client = useQueryClient()
  const query = useQuery({
    queryKey: ['adapters'],
    queryFn: ({ signal }) => request<HubState>('GET', '/api/adapters', undefined, signal),
    staleTime: 30_000,
    retry: 1,
    enabled: ready,
  })
  const problem = shallowRef<Problem | null>(null)
  const busy = ref(false)
  const verified = shallowRef<Verified | null>(null)
  const trained = shallowRef<{ stage: string; fraction: number } | null>(null)
  const benched = shallowRef<Measured | null>(null)
  const refresh = async (): Promise<void> => void (await client.invalidateQueries({ queryKey: ['adapters'] }))

  let stages: string[] = []
  const training = useRunEvents(['progress', 'result'], (type, data) => {
    if (type === 'result') {
      void refresh()
      return
    }
    const now = data as { stage: string; step: number; steps: number }
    if (!stages.includes(now.stage)) stages = [...stages, now.stage]
    trained.value = { stage: now.stage, fraction: (stages.length - 1 + now.step / now.steps) / STAGES }
  })
  const bench = useRunEvents(['progress', 'timing', 'drift', 'result'], (type, data) => {
    if (type === 'result') benched.value = data as Measured
  })
  const followed = ['starting', 'queued', 'running', 'reconnecting']
  watch(
    query.data,
    (now) => {
      for (const [run, job] of [
        [training, now?.training],
        [bench, now?.measuring],
      ] as const)
        if (job && run.id.value !== job && !followed.includes(run.status.value)) run.join(job)
    },
    { immediate: true },
  )

  return {
    state: computed(() => query.data.value),
    problem: computed({
      get: () => problem.value ?? (query.error.value ? asProblem(query.error.value) : null),
      set: (value) => (problem.value = value),
    }),
    busy,
    training,
    trained,
    bench,
    benched,
    verified,
    async train() {
      stages = []
      trained.value = null
      await training.start('/api/adapters/train', { preset: 'standard' })
    },
    async measureLarge() {
      benched.value = null
      await bench.start('/api/adapters/bench', { layers: 4 })
    },
    async act<T>(path: string, body: unknown = {}, method: 'POST' | 'DELETE' = 'POST') {
      busy.value = true
      problem.value = null
      try {
        return await request<T>(method, path, method === 'DELETE' ? undefined : body)
      } catch (error) {
        problem.value = asProblem(error)
        return null
      } finally {
        busy.value = false
        await refresh()
      }
    },
    refresh,
  }
}
