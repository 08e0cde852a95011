/**
 * Puts the engine into the build: Python compiled to WebAssembly, its standard library, the package's own modules, and the
 * answers to what a page at its defaults asks. `import { FILES, ANSWERS } from 'virtual:engine'` names the files.
 *
 * What takes seconds to make is kept in node_modules/.cache, under a hash of what it is made of.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'
import { FIRST_QUESTIONS } from '../../src/shared/api/firstQuestions.ts'
import { answers, FILES, FOLDER, NO_PACKAGES, standardLibrary, VERSION } from './python.ts'
import { tar } from './tar.ts'

const NAME = 'virtual:engine'
/** Of the package: what computes, and nothing that needs more than the standard library and the wheels. */
const PARTS = [
  'core',
  'planner',
  'trainers',
  'endpoints',
  'huggingface/ids.py',
  'huggingface/named.py',
  'lab/forgetting/recorded.py',
]
/** Needs NumPy. */
const LEFT_OUT = 'trainers/guess/'
const SHELLS = ['__init__.py', 'huggingface/__init__.py', 'lab/__init__.py', 'lab/forgetting/__init__.py']
const RECORDED = 'lab/forgetting/recorded'
/** PyYAML as Python alone, for the files of trainers; wheels/README.md says where it comes from. */
const WHEELS = new URL('wheels/', import.meta.url)

const digest = (...parts: (string | Uint8Array)[]): string => {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest('hex').slice(0, 10)
}

/** Files below the package, in a fixed order. */
function collected(source: string, parts: readonly string[]): Map<string, Uint8Array> {
  const names = parts.flatMap((part) =>
    /\.\w+$/.test(part)
      ? [part]
      : readdirSync(join(source, part), { recursive: true, encoding: 'utf8' })
          .filter((name) => /\.(py|json)$/.test(name))
          .map((name) => join(part, name))
          .filter((name) => !name.startsWith(LEFT_OUT)),
  )
  return new Map(names.sort().map((name) => [`loralens/${name}`, new Uint8Array(readFileSync(join(source, name)))]))
}

/** Python imports from a wheel as it is. */
function wheels(): Map<string, Uint8Array> {
  const names = readdirSync(WHEELS).filter((name) => name.endsWith('.whl'))
  return new Map(names.sort().map((name) => [`wheels/${name}`, new Uint8Array(readFileSync(new URL(name, WHEELS)))]))
}

/** A file that is made once. */
async function kept(cache: string, name: string, make: () => Promise<Uint8Array | string>): Promise<Buffer> {
  const file = join(cache, name)
  if (!existsSync(file)) {
    mkdirSync(cache, { recursive: true })
    writeFileSync(file, await make())
  }
  return readFileSync(file)
}

export interface Engine {
  /** File names below assets/ and their content. */
  files: Map<string, Uint8Array>
  /** What the page's worker starts with: three names, and a list of packages. */
  names: { pyodide: string; library: string; code: string; packages: string }
  /** Question to the name of the file with its answer. */
  answers: Record<string, string>
}

/** How a question is looked up: method, path and body as they are sent. */
export const keyOf = (method: string, path: string, body: string): string => `${method} ${path} ${body}`

async function build(source: string, cache: string): Promise<Engine> {
  const library = await kept(
    cache,
    `python-${VERSION}-${digest(readFileSync(new URL('python.ts', import.meta.url)))}.zip`,
    standardLibrary,
  )
  const code = new Map([...collected(source, [...PARTS, ...SHELLS]), ...wheels()])
  const archive = gzipSync(tar(code), { level: 9 })
  const everything = new Map([...code, ...collected(source, [RECORDED])])
  const questions = FIRST_QUESTIONS.map(
    ([method, path, body]) => [method, path, body === undefined ? '' : JSON.stringify(body)] as const,
  )
  const seed = digest(library, tar(everything), JSON.stringify(questions))
  const texts = JSON.parse(
    String(
      await kept(cache, `answers-${seed}.json`, async () => {
        const file = join(cache, 'library.zip')
        writeFileSync(file, library)
        return JSON.stringify(await answers(file, everything, questions))
      }),
    ),
  ) as string[]
  const names = {
    pyodide: `pyodide-${VERSION}/`,
    library: `python-${digest(library)}.zip`,
    code: `loralens-${digest(archive)}.tgz`,
    packages: NO_PACKAGES,
  }
  const files = new Map<string, Uint8Array>([
    ...FILES.map((name) => [names.pyodide + name, new Uint8Array(readFileSync(join(FOLDER, name)))] as const),
    [names.library, library],
    [names.code, archive],
  ])
  const found: Engine = { files, names, answers: {} }
  for (const [index, question] of questions.entries()) {
    const name = `answer-${digest(texts[index]!)}.json`
    files.set(name, Buffer.from(texts[index]!))
    found.answers[keyOf(...question)] = name
  }
  return found
}

/** `source`: the Python package. */
export function engine(source: string): Plugin {
  let made: Promise<Engine> | undefined
  let cache = ''
  let server = false
  return {
    name: 'engine',
    configResolved(config) {
      cache = resolve(config.root, 'node_modules/.cache/engine')
      server = config.command === 'serve' || Boolean(config.build.ssr)
    },
    resolveId: (id) => (id === NAME ? `\0${NAME}` : undefined),
    async load(id) {
      if (id !== `\0${NAME}`) return undefined
      // There is always a server beside the one of development, and none is asked while the page is rendered.
      if (server) return 'export const FILES = null; export const ANSWERS = {}'
      const { names, answers } = await (made ??= build(source, cache))
      return `export const FILES = ${JSON.stringify(names)}; export const ANSWERS = ${JSON.stringify(answers)}`
    },
    async generateBundle() {
      for (const [name, source] of (await made)?.files ?? [])
        this.emitFile({ type: 'asset', fileName: `assets/${name}`, source })
    },
  }
}
