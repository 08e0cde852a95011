/** What the API says of a refusal, as the page says it: in the reader's language, with the labels of the page's fields. */
import { shallowRef } from 'vue'
import { named } from '@/shared/recipe/named'
import type { useLocale } from './index'

/** Fetched by Chinese readers alone. */
const chinese = shallowRef<typeof import('./problemDetails')>()

export function told(said: ReturnType<typeof useLocale>, text: string, hint = false): string {
  if (said.locale.value === 'en') return named(said, text)
  void import('./problemDetails').then((loaded) => (chinese.value = loaded)).catch(() => {})
  return named(said, chinese.value?.[hint ? 'hintInChinese' : 'inChinese'](text) ?? text)
}
