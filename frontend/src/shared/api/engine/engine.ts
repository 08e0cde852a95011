/** The page's own engine, as one asks a server: it starts with the first question and answers one after the other. */
import { ANSWERS, FILES } from 'virtual:engine'
import type { Answer } from '../source'
import COMPUTED from '../computed.json'
import type { Places, Question, Said } from './worker'

interface Waiting {
  question: Question
  signal: AbortSignal | undefined
  settle: (answer: Answer) => void
  refuse: (error: Error) => void
}

const here = (name: string): string => new URL(name, import.meta.url).href
const waiting: Waiting[] = []
let worker: Worker | undefined
let ready = false
let asked: Waiting | undefined
let last = 0
let tell: (starting: boolean) => void = () => undefined

function next(): void {
  if (!ready || asked) return
  asked = waiting.shift()
  if (!asked) return
  if (asked.signal?.aborted) {
    asked.refuse(aborted())
    asked = undefined
    next()
  } else worker!.postMessage(asked.question)
}

const aborted = (): DOMException => new DOMException('the question was withdrawn', 'AbortError')

function stop(why: string): void {
  worker?.terminate()
  worker = undefined
  ready = false
  tell(false)
  for (const one of asked ? [asked, ...waiting] : waiting) one.refuse(new Error(why))
  asked = undefined
  waiting.length = 0
}

function start(): void {
  if (!FILES) throw new Error('this build has no engine')
  tell(true)
  worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'loralens' })
  worker.addEventListener('message', ({ data }: MessageEvent<Said>) => {
    if ('failed' in data) return void stop(data.failed)
    if ('ready' in data) {
      ready = true
      tell(false)
    } else {
      asked?.settle({ status: data.status, text: data.text })
      asked = undefined
    }
    next()
  })
  worker.addEventListener('error', (event) => stop(event.message))
  const places: Places = {
    pyodide: here(FILES.pyodide),
    library: here(FILES.library),
    code: here(FILES.code),
    packages: FILES.packages,
  }
  worker.postMessage(places)
}

const isComputed = (path: string): boolean => {
  const name = /^\/api\/([^?]*)/.exec(path)?.[1] ?? ''
  return COMPUTED.some((known) => name === known || (known.endsWith('/') && name.startsWith(known)))
}

/**
 * The answer that a server gives; none where it is more than computing. `told`: when the engine begins to start, and when
 * it has started. Throws when it cannot be started: its files are elsewhere, or the browser has no WebAssembly.
 */
export async function ask(
  method: string,
  path: string,
  body: string,
  signal?: AbortSignal,
  told?: (starting: boolean) => void,
): Promise<Answer | undefined> {
  if (!isComputed(path)) return undefined
  const known = ANSWERS[`${method} ${path} ${body}`]
  if (known) {
    const response = await fetch(here(known), { signal })
    if (response.ok) return { status: 200, text: await response.text() }
  }
  if (told) tell = told
  if (!worker) start()
  return new Promise((settle, refuse) => {
    waiting.push({ question: { id: ++last, method, path, body }, signal, settle, refuse })
    next()
  })
}
