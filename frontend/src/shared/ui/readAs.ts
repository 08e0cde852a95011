/** How the API understood a name that the catalogue does not have, in the reader's language. */
import type { Locale } from '@/shared/lib/format'
import chinese from './readAs.zh-CN.json'

const RULES = chinese.map(([pattern, text]) => [new RegExp(`^${pattern!}$`), text!] as const)

/** The sentence's pieces, each in Chinese where a rule has it; what no rule has stays as the API says it. */
function pieceIn(text: string): string {
  const found = RULES.find(([pattern]) => pattern.test(text))
  const [, name, model, reason] = /^(.+) is read as ([^:]+): (.+)$/.exec(text) ?? []
  if (reason !== undefined) return `${name} 读作 ${model}：${pieceIn(reason)}`
  return found ? text.replace(found[0], found[1]) : text
}

export const readAsIn = (locale: Locale, sentence: string): string =>
  locale === 'en' ? sentence : `${sentence.split('; ').map(pieceIn).join('；')}。`
