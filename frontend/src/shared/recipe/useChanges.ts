/** Changes that the API advises: what they are called, and how they become the page's settings. */
import { useLocale } from '@/shared/i18n'
import { useSettings } from '@/shared/state/settings'
import { useAnnouncer } from '@/shared/ui/announcer'
import { applyChange, type FieldChange } from './changes'
import { useWordTexts } from './useWordTexts'
import { WORD, type Json } from './words'

export interface Changes {
  label: (change: FieldChange) => string
  /** `said`: what is announced in place of the changes' own names. */
  apply: (changes: readonly FieldChange[], said?: string) => void
}

export function useChanges(): Changes {
  const { t, te } = useLocale()
  const { settings } = useSettings()
  const { announce } = useAnnouncer()
  const texts = useWordTexts()
  const label = ({ field, to }: FieldChange): string => {
    const word = WORD.get(field)
    const value = word ? texts.name(word, to as Json) : t(`method.${String(to)}.name`)
    if (to === false && te(`change.${field}_off`)) return t(`change.${field}_off`)
    if (te(`change.${field}`)) return t(`change.${field}`, { to: value })
    return word ? t('unit.labelled', { name: texts.label(word), value }) : value
  }
  return {
    label,
    apply(changes, said = changes.map(label).join(' + ')) {
      for (const change of changes) applyChange(settings, change)
      announce(t('fit.applied', { change: said }))
    },
  }
}
