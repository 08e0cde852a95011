/** The hub in a worker. First message: its files. Then requests with numbers of their own, and which of them are to stop. */
import { TinyHub, type Files, type Token } from './hub'

export interface Request {
  prompt: string
  adapters: readonly (string | null)[]
  tokens: number
}
export type Asked = { files: Files } | { id: number; ask: Request } | { stop: number }
/** `done`: tokens a second over all rows. */
export type Told = { id: number } & ({ token: Token } | { done: number } | { failed: string })

const tell = (told: Told): void => self.postMessage(told)
const running = new Set<number>()
let hub: TinyHub | undefined

async function answer(id: number, { prompt, adapters, tokens }: Request): Promise<void> {
  const begun = performance.now()
  let count = 0
  let before = -1
  for (const token of hub!.stream(prompt, adapters, tokens)) {
    // Once for all rows: other messages are heard in between.
    if (token.row <= before) await new Promise((later) => setTimeout(later))
    if (!running.has(id)) return
    tell({ id, token })
    before = token.row
    count += 1
  }
  tell({ id, done: count / ((performance.now() - begun) / 1000) })
}

self.addEventListener('message', ({ data }: MessageEvent<Asked>) => {
  if ('files' in data) hub = new TinyHub(data.files)
  else if ('stop' in data) running.delete(data.stop)
  else {
    running.add(data.id)
    answer(data.id, data.ask)
      .catch((error: unknown) => tell({ id: data.id, failed: String(error) }))
      .finally(() => running.delete(data.id))
  }
})
