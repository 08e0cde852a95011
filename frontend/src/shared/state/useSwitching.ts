/** How long a change of adapter took, once it was measured here. */
import { useQuery } from '@tanstack/vue-query'
import { computed, type ComputedRef } from 'vue'

interface Measured {
  measured: { timings: { way: string; median_seconds: number }[] } | null
}

export interface Switching {
  seconds: number
  reloadSeconds: number
}

export function useSwitching(): ComputedRef<Switching | null> {
  // The adapters' section asks; this query only listens and never asks by itself.
  const hub = useQuery<Measured>({ queryKey: ['adapters'], enabled: false })
  return computed(() => {
    const timings = hub.data.value?.measured?.timings ?? []
    const reload = timings.find((row) => row.way === 'reload base')
    const swap = timings.find((row) => row.way === 'pointer')
    return reload && swap ? { seconds: swap.median_seconds, reloadSeconds: reload.median_seconds } : null
  })
}
