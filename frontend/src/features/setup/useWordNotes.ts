/** What the API says of single words: that one is refused, or that it changes nothing for the chosen method. */
import { computed, type ComputedRef } from 'vue'
import { useLocale } from '@/shared/i18n'
import { useProblem } from '@/shared/i18n/problem'
import { useNamed } from '@/shared/recipe/named'
import type { Json, JsonObject, Word } from '@/shared/recipe/words'
import { useAnswers } from '@/shared/state/answers'
import { useSettings } from '@/shared/state/settings'
import { reasonIn } from '@/shared/ui/ledger'

export interface WordNotes {
  /** Why each word that has no effect has none. */
  idle: ComputedRef<ReadonlyMap<string, string>>
  /** What the answer used for a word; undefined before the first answer. */
  used: (word: Word) => Json | undefined
  /** The word that was refused, and why. */
  refused: ComputedRef<{ path: string; text: string } | null>
}

export function useWordNotes(): WordNotes {
  const { t, locale } = useLocale()
  const { settings } = useSettings()
  const answers = useAnswers()
  const { say } = useProblem()
  const named = useNamed()
  // While the next answer is on its way, the earlier one's recipe stays.
  const recipe = computed<JsonObject | undefined>(
    (before) => (answers.estimate(settings.method)?.recipe as JsonObject | undefined) ?? before,
  )
  return {
    used: ({ path }) =>
      path
        .split('.')
        .reduce<Json | undefined>((now, key) => (now as JsonObject | null | undefined)?.[key], recipe.value),
    idle: computed(() => {
      const rows = answers.estimate(settings.method)?.without_effect ?? []
      return new Map(
        rows.flatMap(({ words, reason }) =>
          words.map((name) => [name, t('words.idle', { reason: named(reasonIn(locale.value, reason)) })] as const),
        ),
      )
    }),
    refused: computed(() => {
      const problem = answers.error.value?.problem
      return problem?.field ? { path: problem.field, text: say(problem) } : null
    }),
  }
}
