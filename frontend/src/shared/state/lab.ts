/** Whether what needs PyTorch can be used: ./start.sh installs it while the page is already open. */
import { useQuery, useQueryClient } from '@tanstack/vue-query'
import { computed, type ComputedRef } from 'vue'
import { request, type Schemas } from '@/shared/api/client'
import { useLocale } from '@/shared/i18n'
import { useAnnouncer } from '@/shared/ui/announcer'

export type LabAnswer = Schemas['LabAnswer']

export interface Lab {
  state: ComputedRef<LabAnswer | undefined>
  /** True once the server said that it can be used. */
  ready: ComputedRef<boolean>
  /** True once the server said that it cannot be used yet. */
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
  return {
    state: computed(() => query.data.value),
    ready: computed(() => query.data.value?.status === 'ready'),
    blocked: computed(() => query.data.value !== undefined && query.data.value.status !== 'ready'),
  }
}
