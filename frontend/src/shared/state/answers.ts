/**
 * What the API says about the current settings.
 *
 * `shown` comes from plans and follows a slider in the same frame; `answer` is the API's full answer for settings that
 * have come to rest (terms, assumptions, verdicts). Both are the same ledger; a test holds them equal.
 */
import { computed, inject, provide, type ComputedRef, type InjectionKey } from 'vue'
import { ApiError, OfflineError, request } from '@/shared/api/client'
import { away } from '@/shared/api/source'
import type { Part2Settings } from '@/shared/url/part2Query'
import { useCatalogue, type Catalogue } from './useCatalogue'
import { useFallback, useModelChoice, type Choice } from './useModelChoice'
import { useMemory, type Memory } from './useMemory'
import { usePlans, type Shown, type Standing } from './usePlans'

export interface Answers extends Catalogue, Choice, Memory {
  /** The numbers on the page with their model and settings; none before the first answer. */
  shown: ComputedRef<Shown | undefined>
  /** Whether `shown` answers the settings, and if not, why. */
  standing: ComputedRef<Standing>
  /** The name of the model that is asked about, whether or not there are numbers of it. */
  askedName: ComputedRef<string>
  /** Whether the server is gone. */
  offline: ComputedRef<boolean>
  error: ComputedRef<ApiError | null>
  retry: () => void
}

const KEY: InjectionKey<Answers> = Symbol('answers')

export function provideAnswers(settings: Part2Settings): Answers {
  const { queries: lists, ...catalogue } = useCatalogue(settings)
  const choice = useModelChoice(settings)
  const { shown, standing, failure, query: plans } = usePlans(settings, choice)
  const { refusal, queries: full, ...answered } = useMemory(settings, choice)

  const queries = [plans, ...full, ...lists]
  const error = computed(() => {
    const found = [failure.value, refusal.value].find((item) => item instanceof ApiError)
    return (found as ApiError | undefined) ?? null
  })
  const answers: Answers = {
    ...catalogue,
    ...choice,
    ...answered,
    // A name in the address is understood by whoever answers; one that was typed, when it was looked up.
    readAs: computed(
      () => (standing.value === 'current' ? shown.value?.model.read_as : undefined) ?? choice.readAs.value,
    ),
    shown,
    standing,
    askedName: computed(() => {
      if (standing.value === 'current') return shown.value!.model.name
      const { value: config } = choice.ownConfig
      if (config) return String(config._name_or_path ?? config.model_type ?? 'config.json')
      return catalogue.models.value.find((row) => row.id === settings.model)?.name ?? settings.model
    }),
    offline: computed(() => away.value || queries.some((query) => query.error.value instanceof OfflineError)),
    error,
    retry: () => {
      // What the engine answered need not be asked again; whether the server is back is known by its next answer.
      if (away.value) void request('GET', '/api/health').catch(() => undefined)
      for (const query of queries) if (query.error.value) void query.refetch()
    },
  }
  useFallback(settings, choice, error)
  provide(KEY, answers)
  return answers
}

export function useAnswers(): Answers {
  const answers = inject(KEY)
  if (!answers) throw new Error('useAnswers needs provideAnswers above it')
  return answers
}

/** The numbers, for views that exist only where there are some. */
export function useShown(): ComputedRef<Shown> {
  const { shown } = useAnswers()
  return computed(() => {
    if (!shown.value) throw new Error('useShown needs numbers to show')
    return shown.value
  })
}
