/** What the API says of a training file's keys, in the reader's language; what no rule has stays as the API says it. */
import { joined } from '@/shared/i18n/joined'
import type { Locale } from '@/shared/lib/format'
import chinese from './said.zh-CN.json'

const RULES = chinese.map(([pattern, text]) => [new RegExp(`^${pattern!}$`), text!] as const)

export function saidIn(locale: Locale, sentence: string): string {
  const found = locale === 'en' ? undefined : RULES.find(([pattern]) => pattern.test(sentence))
  return joined(found ? sentence.replace(found[0], found[1]) : sentence)
}
