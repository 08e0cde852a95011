/** Whether what needs PyTorch can be used: ./start.sh installs it while the page is already open. */
import { useQuery, useQueryClient } from '@tanstack/vue-query'
import { computed, type ComputedRef } from 'vue'
import { request, type Schemas } from '@/shared/api/client'
import { ALONE } from '@/shared/api/source'
import { useLocale } from '@/shared/i18n'
import { useAnnouncer } from '@/shared/ui/announcer'

type LabAnswer = Schemas['LabAnswer']
/** What the server says of it; `alone`: there is none. */
export type LabState = Omit<LabAnswer, 'status'> & { status: LabAnswer['status'] | 'alone' }
const NOBODY: LabState = {
  status: 'alone',
  phase: null,
  downloaded_bytes: null,
  file: null,
  file_bytes: null,
  file_total_bytes: null,
  seconds: null,
  failure: null,
  reason: null,
  hint: './start.sh',
}

export interface Lab {
  state: ComputedRef<LabState | undefined>
  /** True once the server said that it can be used. */
  ready: ComputedRef<boolean>
  /** True once it is known that it cannot be used, or not yet. */
  blocked: ComputedRef<boolean>
}

const WORKING_MS = 1000
const WAITING_MS = 5000

export function useLab(): Lab {
  const client = useQueryClient()
  const { t } = useLocale()
  const { announce } = useAnnouncer()
  const query = useQuery({
    queryKey: ['lab'],
    enabled: !ALONE,
    async queryFn({ signal }) {
      const before = client.getQueryData<LabAnswer>(['lab'])
      const now = await request<LabAnswer>('GET', '/api/lab', undefined, signal)
      if (before && before.status !== 'ready' && now.status === 'ready') {
        announce(t('lab.ready'))
        void client.invalidateQueries({
          predicate: (other) => ['system', 'adapters'].includes(String(other.queryKey[0])),
        })
      }
      return now
    },
    refetchInterval: (now) =>
      !now.state.data || now.state.data.status === 'ready'
        ? false
        : now.state.data.status === 'installing'
          ? WORKING_MS
          : WAITING_MS,
  })
  const state = computed<LabState | undefined>(() => (ALONE ? NOBODY : query.data.value))
  return {
    state,
    ready: computed(() => state.value?.status === 'ready'),
    blocked: computed(() => state.value !== undefined && state.value.status !== 'ready'),
  }
}
