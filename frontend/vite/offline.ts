/** Writes the service worker (src/app/serviceWorker.js) with the list of the build's files: the page without a network. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'
import { afterBuild } from './afterBuild.ts'

export const NAME = 'serviceWorker.js'
/** Copies for servers, what readers without a script get, and what differs from visit to visit. */
const LEFT_OUT = /\.(gz|br)$|^pages\/|(^|\/)index\.html$|^serviceWorker\.js$/

/** `alone`: each folder has its document; a server answers every address, and without it `index.html` does. */
export const offline = (source: string, alone: boolean): Plugin =>
  // After the documents were rendered, and before anything is compressed.
  afterBuild('offline', (output) => {
    const names = readdirSync(output, { recursive: true, encoding: 'utf8' }).sort()
    const files = names.filter((name) => !LEFT_OUT.test(name) && statSync(join(output, name)).isFile())
    const pages = names.filter((name) => /(^|\/)index\.html$/.test(name))
    const documents = alone ? pages.map((name) => name.replace('index.html', '')) : ['index.html']
    const hash = createHash('sha256').update(files.join('\n'))
    for (const name of pages) hash.update(readFileSync(join(output, name)))
    const listed = { version: hash.digest('hex').slice(0, 10), documents, files }
    const text = readFileSync(source, 'utf8')
    if (!text.includes(' = LISTED\n')) throw new Error(`${source} has no place for the list`)
    writeFileSync(
      join(output, NAME),
      text.replace(' = LISTED\n', () => ` = ${JSON.stringify(listed)}\n`),
    )
  })
