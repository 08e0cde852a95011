import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readMessages } from '../../../vite/messages'

type Tree = { [key: string]: string | Tree }
const read = (name: string): Tree => readMessages(join(import.meta.dirname, '../../locales'), name)

function flat(tree: Tree, prefix = ''): Map<string, string> {
  return new Map(
    Object.entries(tree).flatMap(([key, value]) =>
      typeof value === 'string' ? [[prefix + key, value] as [string, string]] : [...flat(value, `${prefix}${key}.`)],
    ),
  )
}

const zh = flat(read('zh-CN'))
const en = flat(read('en'))
const source = join(import.meta.dirname, '../..')
const files = (folder: string): string[] =>
  readdirSync(folder).flatMap((name) =>
    statSync(join(folder, name)).isDirectory()
      ? files(join(folder, name))
      : /\.(vue|ts)$/.test(name) && !name.endsWith('.test.ts')
        ? [join(folder, name)]
        : [],
  )
const code = files(source)
  .map((file) => readFileSync(file, 'utf8'))
  .join('\n')

describe('the two languages', () => {
  it('have the same keys', () => {
    expect([...en.keys()].sort()).toEqual([...zh.keys()].sort())
  })

  it('put in the same values', () => {
    const places = (text: string): string[] =>
      [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!))].sort()
    for (const [key, text] of zh) expect([key, ...places(en.get(key)!)]).toEqual([key, ...places(text)])
  })

  it('keep a number on the line of its unit', () => {
    for (const [key, text] of [...zh, ...en])
      expect([key, /[\d}] (?:[KMG]iB|[kMG]B|m?s|min|h|nats)\b/.test(text)]).toEqual([key, false])
  })

  it('put no bracket around or behind a name that may have brackets of its own', () => {
    for (const [key, text] of [...zh, ...en])
      expect([key, /[（(]\{(word|arm)\}|\{(name|word|arm)\} ?[（(]/.test(text)]).toEqual([key, false])
    const table = JSON.parse(readFileSync(join(source, 'shared/ui/ledger.zh-CN.json'), 'utf8')) as {
      reasons: Record<string, string>
    }
    // A reason stands in brackets behind its words.
    expect(Object.entries(table.reasons).filter((row) => row.some((text) => /[（(]/.test(text)))).toEqual([])
  })

  it('say one thing as one: a count before a plural has a form for 1', () => {
    const counted =
      /\{(?:n|r|rank|count|place|modules|rounds|samples|rows|nodes|threads)\} (?:(?:more|new) )?[a-z]{2,}s\b/
    const several =
      /^(adapters\.(disk|verified|heldOut|tools\.tooFew|inspect\.\w+)|answer\.targets|benchmark\.doubt\.of|check\.tooMany)$/
    for (const [key, text] of en)
      if (counted.test(text) && !several.test(key)) {
        const [one, many] = text.split('|')
        expect([key, many !== undefined && !counted.test(one!)]).toEqual([key, true])
      }
  })

  it('are told the count where they have a form for 1', () => {
    for (const [key, text] of en)
      if (text.includes('|'))
        expect([key, new RegExp(`\\bt\\(\\s*'${key}'(,\\s*\\{[^{}]*\\}\\s*)?,?\\s*\\)`).test(code)]).toEqual([
          key,
          false,
        ])
  })

  it('call a method by its name, not by its word in the API', () => {
    const bare = /\{\{ *\w+(\.value)?\.method *\}\}|^ +\w+(\.value)?\.method,$|\$\{\w+(\.value)?\.method\}[^.]/gm
    expect([...code.matchAll(bare)].map((match) => match[0])).toEqual([])
  })

  it('leave nothing empty, and nothing Chinese in English', () => {
    for (const text of zh.values()) expect(text.trim()).not.toBe('')
    for (const [key, text] of en) {
      expect(text.trim()).not.toBe('')
      expect([key, /[\u4e00-\u9fff]/.test(text)]).toEqual([key, false])
    }
  })

  it('know every key that the code names', () => {
    const named = [...code.matchAll(/\bt\(\s*'([\w.-]+)'/g)].map((match) => match[1]!)
    expect(named.length).toBeGreaterThan(100)
    expect(named.filter((key) => !zh.has(key))).toEqual([])
  })

  it('hold no key that nothing names', () => {
    const patterns = [...code.matchAll(/`([\w.]*\$\{[^`]*)`/g)].map(
      (match) =>
        new RegExp(
          `^${match[1]!
            .replace(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '\u0000')
            .replace(/[.*+?^()|[\]\\]/g, '\\$&')
            .replaceAll('\u0000', '.+')}$`,
        ),
    )
    expect(
      [...zh.keys()].filter((key) => !code.includes(`'${key}'`) && !patterns.some((pattern) => pattern.test(key))),
    ).toEqual([])
  })
})
