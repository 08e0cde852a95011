/**
 * Where answers come from: a server, or the engine in a worker of this page. A page that was built without a server has
 * the engine alone; any other turns to it when its server is gone, for everything that is only computed.
 */
import { ref } from 'vue'

export interface Answer {
  status: number
  text: string
}

/** Neither a server nor the engine could be reached. */
export class OfflineError extends Error {
  constructor() {
    super('offline')
    this.name = 'OfflineError'
  }
}

/** Whether the page was built to stand alone. */
export const ALONE: boolean = __LORALENS_ALONE__

/** Whether the server is gone and the engine answers in its place. */
export const away = ref(false)
/** Whether the engine is being fetched and started. */
export const starting = ref(false)

const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === 'AbortError'

/** A server that is busy says when to ask again: so often that is done, if it is within so many seconds (assumptions). */
const AGAIN = 2
const PATIENCE_SECONDS = 30

const pause = (seconds: number, signal?: AbortSignal): Promise<void> =>
  new Promise((done, fail) => {
    setTimeout(done, seconds * 1000)
    signal?.addEventListener('abort', () => fail(signal.reason as Error))
  })

async function server(
  method: string,
  path: string,
  body: string,
  signal?: AbortSignal,
  again = AGAIN,
): Promise<Answer> {
  const headers = new Headers({ accept: 'application/json' })
  if (body) headers.set('content-type', 'application/json')
  const response = await fetch(path, { method, signal, headers, body: body || null })
  const seconds = Number(response.headers.get('retry-after'))
  if (response.status === 429 && again && seconds && seconds <= PATIENCE_SECONDS) {
    await pause(seconds, signal)
    return server(method, path, body, signal, again - 1)
  }
  // A proxy in front of a stopped server answers by itself, without our problem body.
  if (response.status === 502 || response.status === 504) throw new OfflineError()
  return { status: response.status, text: await response.text() }
}

/** The engine's answer; none where it is not one that computes. Throws when it cannot be started. */
async function engine(method: string, path: string, body: string, signal?: AbortSignal): Promise<Answer | undefined> {
  const { ask } = await import('./engine/engine')
  return ask(method, path, body, signal, (now) => (starting.value = now))
}

const NEEDS_SERVER = /* @__PURE__ */ Object.freeze({
  status: 503,
  text: '{"title": "Needs a server", "status": 503, "code": "needs_server"}',
})

export async function ask(method: string, path: string, body: string, signal?: AbortSignal): Promise<Answer> {
  if (!__LORALENS_ALONE__) {
    try {
      const served = await server(method, path, body, signal)
      away.value = false
      return served
    } catch (error) {
      if (isAbort(error)) throw error
    }
  }
  const answer = await engine(method, path, body, signal).catch((error: unknown) => {
    throw isAbort(error) ? error : new OfflineError()
  })
  if (__LORALENS_ALONE__) return answer ?? NEEDS_SERVER
  if (!answer) throw new OfflineError()
  away.value = true
  return answer
}
