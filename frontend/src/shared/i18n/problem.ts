/** What the API says when it refuses, in the reader's language: the kind by its code, and its own words where a rule has them. */
import { shallowRef } from 'vue'
import { ApiError, type Problem } from '@/shared/api/client'
import { useLocale } from './index'
import { joined } from './joined'

/** Fetched with the first refusal: most readers meet none. */
const chinese = shallowRef<typeof import('./problemDetails')>()

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
    return te(`problem.${problem.code}`) ? t(`problem.${problem.code}`, { detail }) : detail
  }
  return {
    say,
    sayHint: ({ hint }) => joined(hint && locale.value !== 'en' ? inChinese(hint, 'hintInChinese') : (hint ?? '')),
    sayError: (error) => (error instanceof ApiError ? say(error.problem) : t('state.unreachable')),
  }
}
