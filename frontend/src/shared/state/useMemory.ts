/** The API's full answers (terms, verdicts, tensors) for settings that have come to rest. */
import { useQuery } from '@tanstack/vue-query'
import { computed, ref, watch, type ComputedRef } from 'vue'
import { request, type MemoryAnswer, type MemoryEstimate } from '@/shared/api/client'
import type { Part2Settings } from '@/shared/url/part2Query'
import { live } from './live'
import { bodyOf, lightMethod, type JsonObject, type ModelChoice } from './requests'

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

export function useMemory(settings: Part2Settings, choice: ComputedRef<ModelChoice>) {
  const wanted = computed(() => JSON.stringify({ ...bodyOf(choice.value, settings), gpu: settings.gpu }))
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
  const enabled = computed(() => live.value && resting.value !== '')
  const memory = useQuery({
    queryKey: ['memory', resting],
    queryFn: ({ signal, queryKey }) =>
      request<MemoryAnswer>('POST', '/api/memory', JSON.parse(queryKey[1]!) as JsonObject, signal),
    enabled,
    staleTime: Infinity,
  })
  const tensors = useQuery({
    queryKey: ['parameters', resting, computed(() => lightMethod(settings))],
    queryFn: ({ signal, queryKey }) => {
      const { model, config, recipe } = JSON.parse(queryKey[1] as string) as JsonObject
      const body = { model, config, recipe, method: queryKey[2] as string }
      return request<ParametersAnswer>('POST', '/api/parameters', body, signal)
    },
    enabled,
    staleTime: Infinity,
  })
  // Neither query keeps an earlier answer under a new question, so what stands here is of `resting` and nothing else.
  const answer = computed(() => (atRest.value ? memory.data.value : undefined))
  const parameters = computed(() => (atRest.value ? tensors.data.value : undefined))
  const memoryApi: Memory = {
    estimate: (method) => answer.value?.estimates.find((item) => item.method === method),
    answer,
    parameters,
    lastParameters: computed<ParametersAnswer | undefined>((before) => tensors.data.value ?? before),
    settled: computed(() => answer.value !== undefined),
  }
  // As with the answer: a refusal of earlier settings is not one of these.
  const refusal = computed(() => (atRest.value ? memory.error.value : null))
  return { ...memoryApi, refusal, queries: [memory, tensors] }
}
