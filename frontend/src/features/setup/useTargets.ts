/** Which layers of the model can carry an adapter, and which do while nobody chooses. */
import { useQuery } from '@tanstack/vue-query'
import { computed, type ComputedRef } from 'vue'
import { request } from '@/shared/api/client'
import { setWord } from '@/shared/recipe/set'
import { useAnswers } from '@/shared/state/answers'
import type { ParametersAnswer } from '@/shared/state/useMemory'
import type { Part2Settings } from '@/shared/url/part2Query'

export interface Targets {
  available: ComputedRef<string[]>
  /** The family's own, in the order of `available`. */
  usual: ComputedRef<string[]>
  chosen: (name: string) => boolean
  toggle: (name: string, on: boolean) => void
}

const END = '.lora_A.weight'

export function useTargets(settings: Part2Settings): Targets {
  const { choice } = useAnswers()
  // The model's own question, apart from the settings: those may be refused, and then the way out is offered here.
  const query = useQuery({
    queryKey: ['targets', computed(() => JSON.stringify(choice.value))],
    queryFn: ({ signal, queryKey }) => {
      const model = JSON.parse(queryKey[1]!) as object
      return request<ParametersAnswer>('POST', '/api/parameters', { ...model, method: 'lora' }, signal)
    },
    staleTime: Infinity,
  })
  const available = computed(() => query.data.value?.target_modules_available ?? [])
  const usual = computed(() => {
    const adapted = (query.data.value?.tensors ?? []).filter((row) => row.name.endsWith(END))
    const names = new Set(adapted.map((row) => row.name.slice(0, -END.length).split('.').at(-1)!))
    return available.value.filter((name) => names.has(name))
  })
  const now = computed(() => {
    const targets = settings.words.target_modules
    if (Array.isArray(targets)) return targets as string[]
    // A regular expression ticks nothing: which names it means is the API's business.
    return targets === undefined ? usual.value : targets === 'all-linear' ? available.value : []
  })
  return {
    available,
    usual,
    chosen: (name) => now.value.includes(name),
    toggle(name, on) {
      const next = available.value.filter((item) => (item === name ? on : now.value.includes(item)))
      if (next.length === 0) return
      setWord(settings, 'target_modules', next.join() === usual.value.join() ? undefined : next)
    },
  }
}
