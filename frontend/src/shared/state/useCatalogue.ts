/** The models and GPUs that the server knows, and the GPU that was chosen. */
import { useQuery } from '@tanstack/vue-query'
import { computed, watch, type ComputedRef } from 'vue'
import { request, type GpuRow, type ModelRow } from '@/shared/api/client'
import defaultGpu from '@/shared/api/defaultGpu.json'
import { useLocale } from '@/shared/i18n'
import { parseOwnGpu } from '@/shared/lib/ownGpu'
import type { Part2Settings } from '@/shared/url/part2Query'
import { live } from './live'

/** What the page says of a GPU: a row of the catalogue, or the reader's own. */
export type ShownGpu = Pick<GpuRow, 'id' | 'name' | 'memory_bytes'>

export interface Catalogue {
  models: ComputedRef<ModelRow[]>
  gpus: ComputedRef<GpuRow[]>
  gpu: ComputedRef<ShownGpu | undefined>
}

export function useCatalogue(settings: Part2Settings) {
  const { t } = useLocale()
  const models = useQuery({
    queryKey: ['models'],
    queryFn: ({ signal }) => request<{ models: ModelRow[] }>('GET', '/api/models', undefined, signal),
    staleTime: Infinity,
    enabled: live,
  })
  const gpus = useQuery({
    queryKey: ['gpus'],
    queryFn: ({ signal }) => request<{ gpus: GpuRow[] }>('GET', '/api/gpus', undefined, signal),
    staleTime: Infinity,
    enabled: live,
  })
  const rows = computed(() => gpus.data.value?.gpus ?? [])
  // A link may say an alias: from here on it is the GPU's id, which every list and every later link has.
  watch(
    rows,
    async (known) => {
      const { gpu } = settings
      if (known.length === 0 || known.some((row) => row.id === gpu)) return
      const { gpuCalled } = await import('./gpuAlias')
      if (settings.gpu === gpu) settings.gpu = gpuCalled(known, gpu)?.id ?? gpu
    },
    { immediate: true },
  )
  const catalogue: Catalogue = {
    models: computed(() => models.data.value?.models ?? []),
    gpus: rows,
    gpu: computed(() => {
      const own = parseOwnGpu(settings.gpu)
      if (own) return { id: own.id, name: own.name ?? t('gpu.own'), memory_bytes: own.memoryBytes }
      return (
        rows.value.find((row) => row.id === settings.gpu) ?? (settings.gpu === defaultGpu.id ? defaultGpu : undefined)
      )
    }),
  }
  return { ...catalogue, queries: [models, gpus] }
}
