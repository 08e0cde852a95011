/** The API's details of a refusal in Chinese, by the rules of problem.zh-CN.json; what no rule has stays as it is said. */
import { reasonIn } from '@/shared/ui/ledger'
import chinese from './problem.zh-CN.json'

const rules = (rows: string[][]): (readonly [RegExp, string])[] =>
  rows.map(([pattern, text]) => [new RegExp(`^${pattern!}$`), text!] as const)
const DETAILS = rules(chinese.details)
const ALLOWED = rules(chinese.allowed)
const HINTS = rules(chinese.hints)

/** `alpha=16 (full fine-tuning has no adapter), rank=8`: words, each with the reason why it means nothing where it has one. */
const reasoned = (text: string): string =>
  text
    .replace(/ \(([^()]+)\)/g, (whole, reason: string) => {
      const said = reasonIn('zh-CN', reason)
      return said === reason ? whole : `（${said}）`
    })
    .replace(/, (?=[a-z_]+=)/g, '、')

function ruled(table: readonly (readonly [RegExp, string])[], text: string): string | null {
  const found = table.find(([pattern]) => pattern.test(text))
  return found ? text.replace(found[0], found[1]) : null
}

/** `lora.rank must be a whole number from 1 to 65536, got 0`: every word's own refusal has this form. */
export function inChinese(detail: string): string {
  const whole = ruled(DETAILS, detail)
  if (whole !== null) return reasoned(whole)
  const [, path, allowed, given] = /^(\S+) must be (.+), got (.+)$/s.exec(detail) ?? []
  const said = allowed === undefined ? null : ruled(ALLOWED, allowed)
  return said === null ? detail : `${path} 须为 ${said}，得到的是 ${given}`
}

/** The way out that stands beside a refusal. */
export const hintInChinese = (hint: string): string => ruled(HINTS, hint) ?? hint
