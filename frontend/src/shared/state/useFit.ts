/** The planner's answer for settings at rest: the verdict, the time, what fits at most, and what to change. */
import { useQuery } from '@tanstack/vue-query'
import { computed, type ComputedRef, type Ref } from 'vue'
import { request, type Schemas } from '@/shared/api/client'
import { useProblem } from '@/shared/i18n/problem'
import { useAnswers } from './answers'
import { fitBody } from './requests'
import { useSettings } from './settings'

export type FitAnswer = Schemas['FitAnswer']

export interface Fit {
  /** The answer to the settings on the screen. */
  current: ComputedRef<FitAnswer | undefined>
  /** While that one is on its way the earlier one stays; none where the settings were refused. */
  fit: ComputedRef<FitAnswer | undefined>
  /** Why there is none, in the reader's language. */
  refused: ComputedRef<string | null>
  fetching: Ref<boolean>
  /** The API's name of a GPU of one's own is English; the page's is the reader's. */
  gpuName: ComputedRef<string>
}

/** Asked only while `wanted`: the search for advice is the dearest question of the page. */
export function useFit(wanted: () => boolean): Fit {
  const { settings } = useSettings()
  const answers = useAnswers()
  const { sayError } = useProblem()
  // It waits for the settings to rest: a slider would make a question of every stop.
  const body = computed<string>((before) =>
    answers.settled.value ? fitBody(answers.choice.value, settings, settings.method) : (before ?? ''),
  )
  const query = useQuery({
    queryKey: ['fit', body],
    queryFn: ({ signal, queryKey }) => request<FitAnswer>('POST', '/api/fit', JSON.parse(queryKey[1]!), signal),
    enabled: computed(() => answers.settled.value && wanted()),
    staleTime: Infinity,
  })
  const failure = computed(() => answers.error.value ?? query.error.value)
  const current = computed(() => (answers.settled.value ? query.data.value : undefined))
  const fit = computed<FitAnswer | undefined>((before) => (failure.value ? undefined : (current.value ?? before)))
  return {
    current,
    fit,
    refused: computed(() => (failure.value ? sayError(failure.value) : null)),
    fetching: query.isFetching,
    gpuName: computed(() =>
      fit.value && answers.gpu.value?.id === fit.value.gpu.id ? answers.gpu.value.name : (fit.value?.gpu.name ?? ''),
    ),
  }
}
