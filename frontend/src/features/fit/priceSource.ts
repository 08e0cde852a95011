/** Where a price was read, in the reader's language: names and paths stay, the words between them are put into Chinese. */
import type { Locale } from '@/shared/lib/format'
import chinese from './priceSource.zh-CN.json'

const RULES = chinese.map(([pattern, text]) => [new RegExp(pattern!, 'g'), text!] as const)

export const priceSourceIn = (locale: Locale, source: string): string =>
  locale === 'en' ? source : RULES.reduce((text, [pattern, said]) => text.replace(pattern, said), source)
