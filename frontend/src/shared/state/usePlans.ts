/** The numbers on the page: the API's plans, evaluated at the sliders' position in the same frame. */
import { useQuery } from '@tanstack/vue-query'
import defaultPlans from 'virtual:default-plans'
import { computed, ref, toRaw, watch } from 'vue'
import { ApiError, request } from '@/shared/api/client'
import { covers, evaluate, type Plan, type PlanValues, type Variables } from '@/shared/api/plan'
import type { Part2Settings } from '@/shared/url/part2Query'
import { live } from './live'
import { withWord } from '@/shared/recipe/set'
import { WORD, type JsonObject } from '@/shared/recipe/words'
import { askAll, type Refusals } from './askAll'
import { bodiesOf, lightMethod } from './requests'
import type { Choice } from './useModelChoice'

/**
 * Numbers and what they are numbers of, in one object: a view that takes both from here cannot put one model's numbers
 * under another's name, or those of rank 8 under rank 16.
 */
export interface Shown {
  model: Plan['model']
  /** A copy of the settings that the numbers answer. */
  settings: Readonly<Part2Settings>
  /** By method. */
  values: ReadonlyMap<string, PlanValues>
  /** The method that is compared with full fine-tuning. */
  light: string
  /** The compared methods that have no numbers, and why. */
  refused: Refusals
  /** Values at other numbers, where the plans at hand cover them. */
  valuesAt: (other: Partial<Variables>) => ReadonlyMap<string, PlanValues> | null
}

/**
 * How the numbers shown stand to the settings: they answer them; they answer earlier settings, and the new ones are on
 * their way; they answer earlier settings, and the new ones were refused or could not be asked for.
 */
export type Standing = 'current' | 'coming' | 'refused' | 'unreachable'

interface PlanAnswer {
  /** The request it answers. */
  key: string
  plans: Plan[]
  refused: Refusals
}

/** The default model's plans come with the page: its first numbers need no answer, and the API's replace them. */
export const FIRST: PlanAnswer = {
  key: JSON.stringify([defaultPlans.body]),
  plans: defaultPlans.plans as Plan[],
  refused: {},
}

const place = (settings: Part2Settings): Variables => ({
  micro_batch_size: settings.batch,
  sequence_length: settings.length,
  rank: settings.rank,
})

/** Asks the API for plans; without a server the page's own are looked through. */
export async function askPlans(key: string, signal: AbortSignal): Promise<PlanAnswer> {
  const bodies = JSON.parse(key) as JsonObject[]
  const ask = async (body: JsonObject) => (await request<{ plans: Plan[] }>('POST', '/api/plan', body, signal)).plans
  const { answers, refused } = await askAll(bodies, ask)
  return { key, plans: answers.flat(), refused }
}

function shownOf({ plans, refused }: PlanAnswer, settings: Part2Settings): Shown {
  const at = place(settings)
  const evaluated = (where: Variables) => new Map(plans.map((plan) => [plan.method, evaluate(plan, where)]))
  return {
    model: plans[0]!.model,
    settings: { ...toRaw(settings) },
    values: evaluated(at),
    light: lightMethod(settings),
    refused,
    valuesAt(other) {
      const there = { ...at, ...other }
      return plans.every((plan) => covers(plan, there)) ? evaluated(there) : null
    },
  }
}

/** It scales the update, which takes no memory. */
const ALPHA = WORD.get('alpha')!

export function usePlans(settings: Part2Settings, { choice, opening }: Pick<Choice, 'choice' | 'opening'>) {
  const at = computed(() => place(settings))
  // A plan holds for a range of batch, length and rank; `anchor` moves only when a slider leaves that range.
  const anchor = ref<Variables>({ ...at.value })
  const key = computed(() => {
    const { micro_batch_size: batch, sequence_length: length, rank } = anchor.value
    const words = withWord(settings.words, ALPHA, undefined)
    return JSON.stringify(bodiesOf(choice.value, { ...settings, batch, length, rank, words }))
  })
  const query = useQuery({
    queryKey: ['plan', key],
    queryFn: ({ signal, queryKey }) => askPlans(queryKey[1]!, signal),
    enabled: computed(() => live.value && !opening.value),
    staleTime: Infinity,
  })
  /** Only an answer to this very question. Bare: thousands of coefficients are slow to read through reactive proxies. */
  const found = computed(() => {
    const data = toRaw(query.data.value) ?? FIRST
    return data.key === key.value ? data : undefined
  })
  /** The chosen method's refusal is the page's; another one's only takes its own numbers away. */
  const failure = computed(() => found.value?.refused[settings.method] ?? query.error.value)
  const answer = computed(() => (found.value?.refused[settings.method] ? undefined : found.value))
  const covered = computed(() => answer.value?.plans.every((plan) => covers(plan, at.value)) === true)
  watch([at, answer, failure], () => {
    const known = answer.value !== undefined || failure.value instanceof ApiError
    const moved = JSON.stringify(anchor.value) !== JSON.stringify(at.value)
    if (known && !covered.value && moved) anchor.value = { ...at.value }
  })

  const current = computed(() => (answer.value && covered.value ? shownOf(answer.value, settings) : undefined))
  /** While new numbers are on their way the earlier ones stay, whole, with their own model and settings. */
  const shown = computed<Shown | undefined>((before) => current.value ?? before)
  const standing = computed<Standing>(() => {
    if (current.value) return 'current'
    const { value: error } = failure
    return error instanceof ApiError ? 'refused' : error ? 'unreachable' : 'coming'
  })
  return { shown, standing, failure, query }
}
