/**
 * The engine in a worker: Python, compiled to WebAssembly, with the package's own modules. It answers as a server does.
 *
 * First message: where its files are. Every further one is a question.
 */
import type { loadPyodide as Load } from 'pyodide'
import { untar } from './untar'

/** Addresses of the engine's files, and the list of packages that can be installed. */
export interface Places {
  pyodide: string
  library: string
  code: string
  packages: string
}
export interface Question {
  id: number
  method: string
  path: string
  body: string
}
export type Said = { id: number; status: number; text: string } | { ready: true } | { failed: string }

type Ask = (method: string, path: string, body: string) => { toJs: () => unknown; destroy: () => void }
const say = (said: Said): void => self.postMessage(said)

async function fetched(address: string): Promise<Response> {
  const response = await fetch(address)
  if (!response.ok) throw new Error(`${response.status} ${address}`)
  return response
}

async function unpacked(address: string): Promise<Map<string, Uint8Array>> {
  const { body } = await fetched(address)
  const plain = new Response(body!.pipeThrough(new DecompressionStream('gzip')))
  return untar(new Uint8Array(await plain.arrayBuffer()))
}

async function start(places: Places): Promise<Ask> {
  const code = unpacked(places.code)
  code.catch(() => undefined) // it is waited for below
  const { loadPyodide } = (await import(/* @vite-ignore */ `${places.pyodide}pyodide.mjs`)) as {
    loadPyodide: typeof Load
  }
  const python = await loadPyodide({
    indexURL: places.pyodide,
    stdLibURL: places.library,
    lockFileContents: places.packages,
    packageBaseUrl: places.pyodide,
  })
  const path = ['/engine']
  for (const [name, content] of await code) {
    python.FS.mkdirTree(`/engine/${name.slice(0, name.lastIndexOf('/'))}`)
    python.FS.writeFile(`/engine/${name}`, content)
    if (name.endsWith('.whl')) path.push(`/engine/${name}`)
  }
  python.runPython(`import sys; sys.path[:0] = ${JSON.stringify(path)}; sys.dont_write_bytecode = True`)
  return python.pyimport('loralens.endpoints.ask').ask as Ask
}

let ask: Ask | undefined
self.addEventListener('message', (event: MessageEvent<Places | Question>) => {
  const { data } = event
  if ('code' in data) {
    start(data).then(
      (found) => {
        ask = found
        say({ ready: true })
      },
      (error: unknown) => say({ failed: String(error) }),
    )
    return
  }
  const answer = ask!(data.method, data.path, data.body)
  const [status, text] = answer.toJs() as [number, string]
  answer.destroy()
  say({ id: data.id, status, text })
})
