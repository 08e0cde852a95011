import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readMessages, share } from '../../../vite/messages'
import { FIRST, GROUPS, groupOf } from './groups'

type Tree = { [key: string]: string | Tree }
const source = join(import.meta.dirname, '../..')
const locale = (name: string): Tree => readMessages(join(source, 'locales'), name)
const flat = (tree: Tree, prefix = ''): string[] =>
  Object.entries(tree).flatMap(([key, value]) =>
    typeof value === 'string' ? [prefix + key] : flat(value, `${prefix}${key}.`),
  )

/** The files that a module imports at once, without those that it fetches later. */
function eager(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const [, path] of readFileSync(file, 'utf8').matchAll(/^import (?!type)[^\n]*from '(@?\.?\.?\/[^']+)'/gm)) {
    const base = path!.startsWith('@/') ? join(source, path!.slice(2)) : join(file, '..', path!)
    const found = [base, `${base}.ts`, `${base}/index.ts`].find((name) => /\.(vue|ts)$/.test(name) && existsSync(name))
    if (found) eager(found, seen)
  }
  return seen
}

describe('the shares of the messages', () => {
  it('together are the whole, each message once', () => {
    const all = locale('en')
    expect(GROUPS.flatMap((group) => flat(share(all, group) as Tree)).sort()).toEqual(flat(all).sort())
  })

  it('hold in the first whatever the frame and the first screen can say', () => {
    const files = ['app/App.vue', 'pages/Part2.vue', 'pages/NotFound.vue'].flatMap((name) => [
      ...eager(join(source, name)),
    ])
    expect(files.some((file) => file.endsWith('AnswerScreen.vue'))).toBe(true)
    expect(files.some((file) => /(MoreFields|FitBars|ComparisonCards|ModelPopup)\.vue$/.test(file))).toBe(false)
    // Each beginning of a key: the whole of `t('a.b')`, and `a.` of a template like t(`a.${name}`).
    const words = /^(word|choice|problem)\./ // by their names: groups.ts lists those of the first screen; a refusal's kind comes with it
    const keys = [...new Set(files)]
      .flatMap((file) => [...readFileSync(file, 'utf8').matchAll(/\bte?\(\s*['`]([\w.]+)/g)].map((match) => match[1]!))
      .filter((key) => !words.test(key))
    expect(keys.length).toBeGreaterThan(30)
    expect(keys.filter((key) => groupOf(key.replace(/\.$/, '')) !== 'first')).toEqual([])
    // And nothing that no one there says.
    expect(FIRST.filter((prefix) => !keys.some((key) => key === prefix || key.startsWith(`${prefix}.`)))).toEqual([])
  })
})
