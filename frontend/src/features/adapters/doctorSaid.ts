/** What is said about adapters, in the reader's language; what no rule has stays as the API says it. */
import { joined } from '@/shared/i18n/joined'
import type { Locale } from '@/shared/lib/format'
import chinese from './doctor.zh-CN.json'
import refusals from './refusals.zh-CN.json'
import serving from './serving.zh-CN.json'

/** The doctor's and the notes', then why something is refused, then what serving takes. */
const RULES = [...chinese, ...refusals, ...serving].map(
  ([pattern, text]) => [new RegExp(`^${pattern!}$`, 's'), text!] as const,
)

export function doctorSays(locale: Locale, sentence: string): string {
  const found = locale === 'en' ? undefined : RULES.find(([pattern]) => pattern.test(sentence))
  return joined(found ? sentence.replace(found[0], found[1]) : sentence)
}
