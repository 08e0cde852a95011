/** What the API says when it refuses, in the reader's language: the kind by its code, and its own words where a rule has them. */
import { ref, shallowRef } from 'vue'
import { ApiError, type Problem } from '@/shared/api/client'
import { loadMessages, useLocale } from './index'
import { joined } from './joined'

/** Fetched with the first refusal: most readers meet none. */
const refusals = shallowRef<typeof import('./refusals')>()

/** Whether the kinds of refusals are there. */
const ready = ref(false)

export function useProblem(): {
  say: (problem: Problem) => string
  /** The way out, if there is one, with the mark that parts it from what `say` says. */
  sayHint: (problem: Problem) => string
  sayError: (error: unknown) => string
} {
  const said = useLocale()
  const { t, te } = said
  const told = (text: string, before = ''): string => {
    void import('./refusals').then((loaded) => (refusals.value = loaded)).catch(() => {})
    return joined(refusals.value?.told(said, text, before) ?? (before && '; ') + text)
  }
  const say = (problem: Problem): string => {
    const detail = told(problem.detail ?? problem.title)
    // As the details: the kinds of refusals come with the first of them.
    if (!ready.value)
      void loadMessages('rest')
        .then(() => (ready.value = true))
        .catch(() => {})
    return te(`problem.${problem.code}`) ? t(`problem.${problem.code}`, { detail }) : detail
  }
  return {
    say,
    sayHint: (problem) => (problem.hint ? told(problem.hint, say(problem)) : ''),
    sayError: (error) => (error instanceof ApiError ? say(error.problem) : t('state.unreachable')),
  }
}
