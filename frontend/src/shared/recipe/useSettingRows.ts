/** The settings as rows of name and value, for what leaves the page: paper, pictures, tables, citations. */
import { computed, type ComputedRef } from 'vue'
import { useLocale } from '@/shared/i18n'
import { formatBytes } from '@/shared/lib/format'
import { useAnswers } from '@/shared/state/answers'
import { useSettings } from '@/shared/state/settings'
import { precisionOf } from './precision'
import { isSet, valueOf } from './set'
import { useWordTexts } from './useWordTexts'
import { WORDS } from './words'

/** What every answer depends on at first; the other words are said where they are set. */
const ALWAYS = ['micro_batch_size', 'sequence_length', 'rank', 'optimizer', 'gradient_checkpointing']

/** `short`: in a line, without the words that were left at their defaults. */
export function useSettingRows({ short = false } = {}): ComputedRef<[string, string][]> {
  const { t, locale } = useLocale()
  const { settings } = useSettings()
  const answers = useAnswers()
  const texts = useWordTexts()
  return computed(() => [
    [t('setup.model'), answers.askedName.value],
    [
      t('setup.gpu'),
      answers.gpu.value
        ? `${answers.gpu.value.name} · ${formatBytes(answers.gpu.value.memory_bytes, locale.value)}`
        : settings.gpu,
    ],
    [t('setup.method'), t(`method.${settings.method}.name`)],
    // Whatever is set, and the few words that most questions change.
    ...WORDS.filter((word) => isSet(settings, word) || (short ? ALWAYS.includes(word.name) : word.common)).map(
      (word): [string, string] => [
        texts.label(word),
        word.name === 'target_modules' && !isSet(settings, word)
          ? t('cite.targetsDefault')
          : texts.value(word, valueOf(settings, word)),
      ],
    ),
    [t('precision.title'), t(`precision.${precisionOf(settings.words) ?? 'own'}`)],
  ])
}
