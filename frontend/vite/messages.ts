/**
 * Cuts each language's messages into those of the first screen, of the home page, and the rest.
 *
 * A language is one JSON file; names of the recipe's words stand in one file for all languages (`recipe/words.json`).
 * `import('virtual:messages/en/first')` gives the first screen's share. The files stay whole for those who write them:
 * the cut is made while building, and the shares are compiled like any other file of messages.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'
import { GROUPS, groupOf, type Group } from '../src/shared/i18n/groups.ts'
import { joined } from '../src/shared/i18n/joined.ts'

type Tree = { [key: string]: string | Tree }
/** A text in each language, by its name. */
type Texts = Record<string, string>
interface WordTexts {
  label: Texts
  help: Texts
  choices?: Record<string, Texts>
}
const NAME = /^virtual:messages\/([\w-]+)\/(\w+)$/
const SHARE = /([\w-]+)\.share-(\w+)\.json$/

const json = (file: string): unknown => JSON.parse(joined(readFileSync(file, 'utf8')))
const files = (folder: string, locale: string): [string, string] => [
  join(folder, `${locale}.json`),
  join(folder, 'recipe', 'words.json'),
]

/** All messages of a language: its file, and the words' texts as `word.NAME.label` and `choice.NAME.VALUE`. */
export function readMessages(folder: string, locale: string): Tree {
  const [own, words] = files(folder, locale)
  const messages: Tree & { word: Tree; choice: Tree } = { ...(json(own) as Tree), word: {}, choice: {} }
  for (const [name, { label, help, choices }] of Object.entries(json(words) as Record<string, WordTexts>)) {
    messages.word[name] = { label: label[locale]!, help: help[locale]! }
    if (choices)
      messages.choice[name] = Object.fromEntries(Object.entries(choices).map(([value, text]) => [value, text[locale]!]))
  }
  return messages
}

export function share(tree: Tree, group: Group, prefix = ''): Tree {
  const kept: Tree = {}
  for (const [key, value] of Object.entries(tree)) {
    const path = prefix + key
    if (typeof value === 'string') {
      if (groupOf(path) === group) kept[key] = value
    } else {
      const below = share(value, group, `${path}.`)
      if (Object.keys(below).length > 0) kept[key] = below
    }
  }
  return kept
}

export function messages(folder: string): Plugin {
  return {
    name: 'messages',
    enforce: 'pre',
    resolveId(id) {
      const [, locale, group] = NAME.exec(id) ?? []
      if (!locale || !group) return undefined
      if (!(GROUPS as readonly string[]).includes(group)) throw new Error(`no group of messages is called ${group}`)
      // A name inside the folder of the languages, so that the compiler of messages takes it.
      return join(folder, `${locale}.share-${group}.json`)
    },
    load(id) {
      const [, locale, group] = SHARE.exec(id) ?? []
      if (!locale || !group) return undefined
      for (const file of files(folder, locale)) this.addWatchFile(file)
      return JSON.stringify(share(readMessages(folder, locale), group as Group))
    },
  }
}
