/**
 * Cuts each language's one JSON file into the messages of the first screen, of the home page, and the rest.
 *
 * `import('virtual:messages/en/first')` gives the first screen's share. The files stay whole for those who write them:
 * the cut is made while building, and the shares are compiled like any other file of messages.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'
import { GROUPS, groupOf, type Group } from '../src/shared/i18n/groups.ts'

type Tree = { [key: string]: string | Tree }
const NAME = /^virtual:messages\/([\w-]+)\/(\w+)$/
const SHARE = /([\w-]+)\.share-(\w+)\.json$/

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
      const file = join(folder, `${locale}.json`)
      this.addWatchFile(file)
      return JSON.stringify(share(JSON.parse(readFileSync(file, 'utf8')) as Tree, group as Group))
    },
  }
}
