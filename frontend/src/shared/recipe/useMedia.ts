/** The media that a sample of the asked set-up has, in words: what its sequence holds beside text. */
import type { MemoryEstimate } from '@/shared/api/client'
import { useLocale } from '@/shared/i18n'
import type { Locale } from '@/shared/lib/format'
import { useAnswers } from '@/shared/state/answers'

const MEDIA = ['images', 'video_frames', 'audio_seconds'] as const

/** Those that are counted: what the model has no use for is without effect. */
export function mediaOf({ recipe, without_effect: idle }: Pick<MemoryEstimate, 'recipe' | 'without_effect'>): string[] {
  return MEDIA.filter((word) => Number(recipe[word]) > 0 && !idle.some(({ words }) => words.includes(word)))
}

export const listed = (locale: Locale, names: string[]): string => new Intl.ListFormat(locale).format(names)

export function useMedia(): (method: string) => string {
  const { t, locale } = useLocale()
  const answers = useAnswers()
  return (method) => {
    const estimate = answers.estimate(method)
    return estimate
      ? listed(
          locale.value,
          mediaOf(estimate).map((word) => t(`media.${word}`)),
        )
      : ''
  }
}
