/** Past runs of this machine, as the server keeps them. */
import { useQuery } from '@tanstack/vue-query'
import { computed, ref, type ComputedRef } from 'vue'
import { request, type Schemas } from '@/shared/api/client'
import type { RunSummary } from './types'

export interface History {
  runs: ComputedRef<RunSummary[]>
  /** Whether the server could not be asked. */
  failed: ComputedRef<boolean>
  more: ComputedRef<boolean>
  showOlder: () => void
  refresh: () => void
  remove: (id: string) => Promise<void>
}

const FIRST = 8
const MOST = 100
const WATCH_MS = 4000

export function useHistory(): History {
  const limit = ref(FIRST)
  const query = useQuery({
    queryKey: ['benchmarks', limit],
    queryFn: ({ signal }) =>
      request<Schemas['BenchmarkHistory']>('GET', `/api/benchmarks?limit=${limit.value}`, undefined, signal),
    placeholderData: (before) => before,
    // Runs that somebody else started move on by themselves.
    refetchInterval: (state) => (state.state.data?.runs.some(isActive) ? WATCH_MS : false),
  })
  return {
    runs: computed(() => query.data.value?.runs ?? []),
    failed: computed(() => query.isError.value && !query.data.value),
    more: computed(() => query.data.value?.next != null && limit.value < MOST),
    showOlder: () => {
      limit.value = MOST
    },
    refresh: () => void query.refetch(),
    async remove(id) {
      // What cannot be removed is still in the list that is fetched next.
      await request('DELETE', `/api/benchmarks/${encodeURIComponent(id)}`).catch(() => undefined)
      await query.refetch()
    },
  }
}

export const isActive = (run: Pick<RunSummary, 'status'>): boolean =>
  run.status === 'queued' || run.status === 'running'
