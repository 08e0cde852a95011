/** The API's full answers (terms, verdicts, tensors) for settings that have come to rest. */
import { useQuery } from '@tanstack/vue-query'
import { computed, ref, watch, type ComputedRef } from 'vue'
import { request, type MemoryAnswer, type MemoryEstimate } from '@/shared/api/client'
import type { Part2Settings } from '@/shared/url/part2Query'
import { live } from './live'
import type { JsonObject } from '@/shared/recipe/words'
import { askAll } from './askAll'
import { bodiesOf, lightMethod } from './requests'
import type { Choice } from './useModelChoice'

export interface TensorRow {
  name: string
  role: string
  shape: number[]
  count: number
  parameters: number
  dtype: string
  bytes: number
  trainable: boolean
}

export interface ParametersAnswer {
  model: { id: string | null; name: string }
  parameters: { total: number; trainable: number; trainable_percent: number }
  tensors: TensorRow[]
  target_modules_available: string[]
}

export interface Memory {
  /** The full answer for one method, only while it belongs to the settings on the screen. */
  estimate: (method: string) => MemoryEstimate | undefined
  /** All of them, on the same condition. */
  answer: ComputedRef<MemoryAnswer | undefined>
  /** The tensors, on the same condition. */
  parameters: ComputedRef<ParametersAnswer | undefined>
  /** The tensors of the last settings that were answered, with the name of their own model. */
  lastParameters: ComputedRef<ParametersAnswer | undefined>
  settled: ComputedRef<boolean>
}

export function useMemory(settings: Part2Settings, { choice, opening }: Pick<Choice, 'choice' | 'opening'>) {
  const wanted = computed(() =>
    JSON.stringify(bodiesOf(choice.value, settings).map((body) => ({ ...body, gpu: settings.gpu }))),
  )
  const resting = ref('')
  const atRest = computed(() => resting.value === wanted.value)
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(
    wanted,
    (text) => {
      clearTimeout(timer)
      timer = setTimeout(() => (resting.value = text), resting.value === '' ? 0 : 200)
    },
    { immediate: true },
  )
  const enabled = computed(() => live.value && !opening.value && resting.value !== '')
  const memory = useQuery({
    queryKey: ['memory', resting],
    queryFn: async ({ signal, queryKey }) => {
      const bodies = JSON.parse(queryKey[1]!) as JsonObject[]
      const ask = (body: JsonObject) => request<MemoryAnswer>('POST', '/api/memory', body, signal)
      const { answers, refused } = await askAll(bodies, ask)
      return { ...answers[0]!, estimates: answers.flatMap((answer) => answer.estimates), refused }
    },
    enabled,
    staleTime: Infinity,
  })
  const tensors = useQuery({
    queryKey: ['parameters', resting, computed(() => lightMethod(settings))],
    queryFn: ({ signal, queryKey }) => {
      const method = queryKey[2]!
      const bodies = JSON.parse(queryKey[1]!) as (JsonObject & { methods: string[] })[]
      const { model, config, recipe } = bodies.find((body) => body.methods.includes(method))!
      return request<ParametersAnswer>('POST', '/api/parameters', { model, config, recipe, method }, signal)
    },
    enabled,
    staleTime: Infinity,
  })
  // Neither query keeps an earlier answer under a new question, so what stands here is of `resting` and nothing else.
  const found = computed(() => (atRest.value ? memory.data.value : undefined))
  const refused = computed(() => found.value?.refused[settings.method])
  const answer = computed(() => (refused.value ? undefined : found.value))
  const parameters = computed(() => (atRest.value ? tensors.data.value : undefined))
  const memoryApi: Memory = {
    estimate: (method) => answer.value?.estimates.find((item) => item.method === method),
    answer,
    parameters,
    lastParameters: computed<ParametersAnswer | undefined>((before) => tensors.data.value ?? before),
    settled: computed(() => answer.value !== undefined),
  }
  // As with the answer: a refusal of earlier settings is not one of these.
  const refusal = computed(() => refused.value ?? (atRest.value ? memory.error.value : null))
  return { ...memoryApi, refusal, queries: [memory, tensors] }
}
