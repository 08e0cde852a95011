/** What the API says when it refuses, in the reader's language: the kind by its code, and its own words where a rule has them. */
import { ref, shallowRef } from 'vue'
import { ApiError, type Problem } from '@/shared/api/client'
import { loadMessages, useLocale } from './index'
import { joined } from './joined'

/** Fetched with the first refusal: most readers meet none. */
const chinese = shallowRef<typeof import('./problemDetails')>()

/** Whether the kinds of refusals are there. */
const ready = ref(false)

function inChinese(text: string, kind: 'inChinese' | 'hintInChinese' = 'inChinese'): string {
  void import('./problemDetails').then((loaded) => (chinese.value = loaded)).catch(() => {})
  return chinese.value?.[kind](text) ?? text
}

export function useProblem(): {
  say: (problem: Problem) => string
  /** The way out, if there is one. */
  sayHint: (problem: Problem) => string
  sayError: (error: unknown) => string
} {
  const { t, te, locale } = useLocale()
  const say = (problem: Problem): string => {
    const text = problem.detail ?? problem.title
    const detail = joined(locale.value === 'en' ? text : inChinese(text))
    // As the details: the kinds of refusals come with the first of them.
    if (!ready.value)
      void loadMessages('rest')
        .then(() => (ready.value = true))
        .catch(() => {})
    return te(`problem.${problem.code}`) ? t(`problem.${problem.code}`, { detail }) : detail
  }
  return {
    say,
    sayHint: ({ hint }) => joined(hint && locale.value !== 'en' ? inChinese(hint, 'hintInChinese') : (hint ?? '')),
    sayError: (error) => (error instanceof ApiError ? say(error.problem) : t('state.unreachable')),
  }
}
