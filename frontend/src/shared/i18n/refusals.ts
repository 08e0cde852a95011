/** What the API says of a refusal, as the page says it: in the reader's language, with the labels of the page's fields. */
import { shallowRef } from 'vue'
import { named } from '@/shared/recipe/named'
import type { useLocale } from './index'
import { gap } from './sentences'

/** Fetched by Chinese readers alone. */
const chinese = shallowRef<typeof import('./problemDetails')>()

/** `before`: what a hint stands after; the mark between the two is part of the answer. */
export function told(said: ReturnType<typeof useLocale>, text: string, before = ''): string {
  const mark = before && (/[.!?。！？]$/.test(before) ? gap(before) : said.t('unit.semicolon'))
  if (said.locale.value === 'en') return mark + named(said, text)
  void import('./problemDetails').then((loaded) => (chinese.value = loaded)).catch(() => {})
  return mark + named(said, chinese.value?.[before ? 'hintInChinese' : 'inChinese'](text) ?? text)
}
