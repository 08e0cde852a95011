/** What the recipe's words and their values are called, in the reader's language. */
import { useLocale } from '@/shared/i18n'
import { formatInteger } from '@/shared/lib/format'
import { textOf, type Json, type Word } from './words'

export interface WordTexts {
  label: (word: Word) => string
  help: (word: Word) => string
  value: (word: Word, value: Json) => string
  /** The value's name alone, for within a sentence: FSDP2, where a list says what that is. */
  name: (word: Word, value: Json) => string
}

export const useWordTexts = (): WordTexts => wordTexts(useLocale())

export function wordTexts({ t, te, locale }: ReturnType<typeof useLocale>): WordTexts {
  const texts: WordTexts = {
    label: (word) => (te(`word.${word.name}.label`) ? t(`word.${word.name}.label`) : word.name),
    help: (word) => (te(`word.${word.name}.help`) ? t(`word.${word.name}.help`) : ''),
    value(word, value) {
      const text = textOf(value)
      if (te(`choice.${word.name}.${text}`)) return t(`choice.${word.name}.${text}`)
      if (typeof value === 'boolean') return value ? t('print.on') : t('print.off')
      if (value === null) return t('words.none')
      if (Array.isArray(value)) return value.join(typeof value[0] === 'number' ? ' × ' : t('unit.comma'))
      if (typeof value === 'object') return pairsText(value, t('unit.comma'))
      return typeof value === 'number' && Number.isInteger(value) ? formatInteger(value, locale.value) : text
    },
    name: (word, value) => texts.value(word, value).split(/[:：]/)[0]!,
  }
  return texts
}

/** `q_proj=16, v_proj=8`: an object as its field shows it. */
export const pairsText = (value: { [key: string]: Json }, between = ', '): string =>
  Object.entries(value)
    .map(([name, item]) => `${name}=${String(item)}`)
    .join(between)
