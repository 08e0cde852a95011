/** What the API says when it refuses, in the reader's language: the kind by its code, and the API's own words for the rest. */
import { ApiError, type Problem } from '@/shared/api/client'
import { useLocale } from './index'

export function useProblem(): { say: (problem: Problem) => string; sayError: (error: unknown) => string } {
  const { t, te } = useLocale()
  const say = (problem: Problem): string => {
    const detail = problem.detail ?? problem.title
    return te(`problem.${problem.code}`) ? t(`problem.${problem.code}`, { detail }) : detail
  }
  return {
    say,
    sayError: (error) => (error instanceof ApiError ? say(error.problem) : t('state.unreachable')),
  }
}
