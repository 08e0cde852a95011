/**
 * What the API says about the current settings.
 *
 * `values` comes from plans and follows a slider in the same frame; `answer` is the API's full answer for settings that
 * have come to rest (terms, assumptions, verdicts). Both are the same ledger; a test holds them equal.
 */
import { keepPreviousData, useQuery } from '@tanstack/vue-query'
import defaultPlans from 'virtual:default-plans'
import {
  computed,
  inject,
  provide,
  ref,
  shallowReactive,
  shallowRef,
  toRaw,
  watch,
  type ComputedRef,
  type InjectionKey,
  type Ref,
} from 'vue'
import defaultGpu from '@/shared/api/defaultGpu.json'
import {
  ApiError,
  OfflineError,
  request,
  type GpuRow,
  type MemoryAnswer,
  type MemoryEstimate,
  type ModelRow,
  type Schemas,
} from '@/shared/api/client'
import { covers, evaluate, type Plan, type PlanValues, type Variables } from '@/shared/api/plan'
import { useLocale } from '@/shared/i18n'
import { parseOwnGpu } from '@/shared/lib/ownGpu'
import { DEFAULTS, type Part2Settings } from '@/shared/url/part2Query'
import { live } from './live'
import { bodyOf, type JsonObject, type ModelChoice } from './requests'

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
  parameters: { total: number; trainable: number; trainable_percent: number }
  tensors: TensorRow[]
  target_modules_available: string[]
}

/** What the page says of a GPU: a row of the catalogue, or the reader's own. */
export type ShownGpu = Pick<GpuRow, 'id' | 'name' | 'memory_bytes'>

export interface Answers {
  models: ComputedRef<ModelRow[]>
  gpus: ComputedRef<GpuRow[]>
  gpu: ComputedRef<ShownGpu | undefined>
  modelName: ComputedRef<string>
  modelParameters: ComputedRef<number | undefined>
  /** Values of each method at the slider's position, from the plan. */
  values: ComputedRef<Map<string, PlanValues>>
  /** Values at other numbers than the page's, where the plan at hand covers them. */
  valuesAt: (other: Partial<Variables>) => Map<string, PlanValues> | null
  /** The reader's own config.json, when one was given. */
  ownConfig: Ref<JsonObject | null>
  /** Finds a model by its name and shows it; the Hub is asked only with `fromHub`. Throws what the API refuses. */
  lookUp: (name: string, fromHub: boolean) => Promise<Schemas['ResolvedModel']>
  /** A name of the address that means no model; the default model is shown in its place. */
  missing: Ref<string | null>
  choice: ComputedRef<ModelChoice>
  answer: ComputedRef<MemoryAnswer | undefined>
  /** The full answer for one method, only while it belongs to the numbers on the screen. */
  estimate: (method: string) => MemoryEstimate | undefined
  parameters: ComputedRef<ParametersAnswer | undefined>
  settled: ComputedRef<boolean>
  offline: ComputedRef<boolean>
  /** The plans shown come from the page itself, because the server cannot be reached. */
  builtIn: ComputedRef<boolean>
  error: ComputedRef<ApiError | null>
  loading: ComputedRef<boolean>
  retry: () => void
}

const KEY: InjectionKey<Answers> = Symbol('answers')

/** Plans for a few models that ship with the page and are loaded only when the server is away. */
export async function builtInPlans(body: JsonObject): Promise<Plan[]> {
  const all = (await import('@/shared/api/builtInPlans.json')).default as unknown as {
    body: JsonObject
    plans: Plan[]
  }[]
  const strip = (value: JsonObject): string => {
    const recipe = value.recipe as JsonObject
    const lora = recipe.lora as JsonObject
    const rest = { ...recipe, micro_batch_size: 0, sequence_length: 0, lora: { ...lora, rank: 0, alpha: 0 } }
    return JSON.stringify([value.model, value.methods, rest])
  }
  const recipe = body.recipe as JsonObject
  const at: Variables = {
    micro_batch_size: Number(recipe.micro_batch_size),
    sequence_length: Number(recipe.sequence_length),
    rank: Number((recipe.lora as JsonObject).rank),
  }
  const found = all.find((item) => strip(item.body) === strip(body) && item.plans.every((plan) => covers(plan, at)))
  if (!found) throw new OfflineError()
  return found.plans
}

export interface PlanAnswer {
  /** The request it answers. */
  key: string
  plans: Plan[]
  builtIn: boolean
}

/** The default model's plans come with the page: its first numbers need no answer, and the API's replace them. */
export const FIRST: PlanAnswer = {
  key: JSON.stringify(defaultPlans.body),
  plans: defaultPlans.plans as Plan[],
  builtIn: false,
}

export function provideAnswers(settings: Part2Settings): Answers {
  const { t } = useLocale()
  const ownConfig = shallowRef<JsonObject | null>(null)
  /** Configs of models that were looked up by name. */
  const found = shallowReactive(new Map<string, JsonObject>())
  const missing = ref<string | null>(null)
  const choice = computed<ModelChoice>(() => {
    const config = ownConfig.value ?? found.get(settings.model)
    return config ? { config } : { model: settings.model }
  })
  const at = computed<Variables>(() => ({
    micro_batch_size: settings.batch,
    sequence_length: settings.length,
    rank: settings.rank,
  }))

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

  // A plan holds for a range of batch, length and rank; `anchor` moves only when a slider leaves that range.
  const anchor = ref<Variables>({ ...at.value })
  const fixed = computed(() => {
    const body = bodyOf(choice.value, {
      ...settings,
      batch: anchor.value.micro_batch_size,
      length: anchor.value.sequence_length,
      rank: anchor.value.rank,
      alpha: null,
    })
    return JSON.stringify(body)
  })
  const plans = useQuery({
    queryKey: ['plan', fixed],
    queryFn: async ({ signal, queryKey }): Promise<PlanAnswer> => {
      const key = queryKey[1]!
      const body = JSON.parse(key) as JsonObject
      try {
        return {
          key,
          plans: (await request<{ plans: Plan[] }>('POST', '/api/plan', body, signal)).plans,
          builtIn: false,
        }
      } catch (error) {
        if (error instanceof OfflineError) return { key, plans: await builtInPlans(body), builtIn: true }
        throw error
      }
    },
    enabled: live,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  })
  // Bare numbers: to read thousands of coefficients through reactive proxies costs more than to add them up.
  const planned = computed<PlanAnswer | undefined>(
    () => toRaw(plans.data.value) ?? (fixed.value === FIRST.key ? FIRST : undefined),
  )
  const own = computed(() => (planned.value?.key === fixed.value ? planned.value.plans : undefined))
  watch([at, own], ([now, current]) => {
    if (current && !current.every((plan) => covers(plan, now))) anchor.value = { ...now }
  })

  let lastGood = new Map<string, PlanValues>()
  const values = computed(() => {
    // While the plan for other settings is on its way, the numbers stay as they were: never a mixture of both.
    const current = own.value ?? []
    if (current.length > 0 && current.every((plan) => covers(plan, at.value)))
      lastGood = new Map(current.map((plan) => [plan.method, evaluate(plan, at.value)]))
    return lastGood
  })

  // The full answer is asked for once the settings have come to rest.
  const resting = ref('')
  const wanted = computed(() => JSON.stringify({ ...bodyOf(choice.value, settings), gpu: settings.gpu }))
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(
    wanted,
    (text) => {
      clearTimeout(timer)
      timer = setTimeout(() => (resting.value = text), resting.value === '' ? 0 : 200)
    },
    { immediate: true },
  )
  const memory = useQuery({
    queryKey: ['memory', resting],
    queryFn: ({ signal, queryKey }) =>
      request<MemoryAnswer>('POST', '/api/memory', JSON.parse(queryKey[1]!) as JsonObject, signal),
    enabled: computed(() => live.value && resting.value !== ''),
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  })
  const settled = computed(
    () => memory.data.value !== undefined && !memory.isPlaceholderData.value && resting.value === wanted.value,
  )

  const parameters = useQuery({
    queryKey: ['parameters', resting, computed(() => (settings.method === 'full' ? 'lora' : settings.method))],
    queryFn: ({ signal, queryKey }) => {
      const { model, config, recipe } = JSON.parse(queryKey[1] as string) as JsonObject
      return request<ParametersAnswer>(
        'POST',
        '/api/parameters',
        { model, config, recipe, method: queryKey[2] as string },
        signal,
      )
    },
    enabled: computed(() => live.value && resting.value !== ''),
    placeholderData: keepPreviousData,
    staleTime: Infinity,
  })

  const queries = [plans, memory, parameters, models, gpus]
  const answers: Answers = {
    models: computed(() => models.data.value?.models ?? []),
    gpus: computed(() => gpus.data.value?.gpus ?? []),
    gpu: computed(() => {
      const own = parseOwnGpu(settings.gpu)
      if (own) return { id: own.id, name: own.name ?? t('gpu.own'), memory_bytes: own.memoryBytes }
      return (
        gpus.data.value?.gpus.find((row) => row.id === settings.gpu) ??
        (settings.gpu === defaultGpu.id ? defaultGpu : undefined)
      )
    }),
    modelName: computed(
      () =>
        planned.value?.plans[0]?.model.name ??
        models.data.value?.models.find((row) => row.id === settings.model)?.name ??
        settings.model,
    ),
    modelParameters: computed(() => planned.value?.plans[0]?.model.parameters),
    values,
    valuesAt(other) {
      const current = own.value
      const there = { ...at.value, ...other }
      return current?.every((plan) => covers(plan, there))
        ? new Map(current.map((plan) => [plan.method, evaluate(plan, there)]))
        : null
    },
    ownConfig,
    lookUp,
    missing,
    choice,
    answer: computed(() => memory.data.value),
    estimate: (method) =>
      settled.value ? memory.data.value?.estimates.find((item) => item.method === method) : undefined,
    parameters: computed(() => parameters.data.value),
    settled,
    offline: computed(
      () => queries.some((query) => query.error.value instanceof OfflineError) || planned.value?.builtIn === true,
    ),
    builtIn: computed(() => planned.value?.builtIn === true),
    error: computed(() => {
      const found = [plans, memory].map((query) => query.error.value).find((error) => error instanceof ApiError)
      return (found as ApiError | undefined) ?? null
    }),
    loading: computed(() => values.value.size === 0 && plans.isPending.value),
    retry: () => {
      for (const query of queries) if (query.error.value || planned.value?.builtIn) void query.refetch()
    },
  }

  async function lookUp(name: string, fromHub: boolean): Promise<Schemas['ResolvedModel']> {
    const model = await request<Schemas['ResolvedModel']>('POST', '/api/models/resolve', {
      model: name,
      from_hub: fromHub,
    })
    if (model.source !== 'catalogue') found.set(model.id, model.config as JsonObject)
    ownConfig.value = null
    missing.value = null
    settings.model = model.id
    return model
  }

  // A link may name a model that this machine has in a folder or has fetched before. One that is nowhere must not
  // leave an empty page behind: the numbers fall back, and a message stays.
  watch(answers.error, async (error) => {
    const name = settings.model
    if (error?.problem.code !== 'unknown_model' || ownConfig.value || name === DEFAULTS.model) return
    try {
      await lookUp(name, false)
    } catch {
      missing.value = name
      if (settings.model === name) settings.model = DEFAULTS.model
    }
  })
  watch(
    () => settings.model,
    (model) => {
      if (model !== DEFAULTS.model) missing.value = null
    },
  )

  provide(KEY, answers)
  return answers
}

export function useAnswers(): Answers {
  const answers = inject(KEY)
  if (!answers) throw new Error('useAnswers needs provideAnswers above it')
  return answers
}
