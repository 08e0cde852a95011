/** The page's side of the hub's worker: it is fetched and started with the first request. */
import { fetchHub } from './files'
import type { Asked, Request, Told } from './hubWorker'

export class HubClient {
  private worker: Promise<Worker> | undefined
  private readonly listeners = new Map<number, (told: Told) => void>()
  private last = 0

  /** `heard`: every token, then the rate, or why it failed. Gives what stops it. */
  ask(request: Request, heard: (told: Told) => void): () => void {
    const id = ++this.last
    this.listeners.set(id, heard)
    this.worker ??= this.start()
    this.worker.then(
      (worker) => this.listeners.has(id) && say(worker, { id, ask: request }),
      (error: unknown) => this.fail(String(error)),
    )
    return () => {
      this.listeners.delete(id)
      void this.worker?.then((worker) => say(worker, { stop: id }))
    }
  }

  close(): void {
    this.listeners.clear()
    void this.worker?.then((worker) => worker.terminate())
  }

  private async start(): Promise<Worker> {
    const files = await fetchHub()
    const worker = new Worker(new URL('./hubWorker.ts', import.meta.url), { type: 'module', name: 'loralens-hub' })
    worker.addEventListener('message', ({ data }: MessageEvent<Told>) => this.listeners.get(data.id)?.(data))
    worker.addEventListener('error', (event) => this.fail(event.message))
    say(worker, { files }, [files.base, ...files.adapters.map(({ weights }) => weights)])
    return worker
  }

  /** Everyone who waits is told, and the next request begins afresh. */
  private fail(why: string): void {
    this.worker = undefined
    const waiting = [...this.listeners]
    this.listeners.clear()
    for (const [id, heard] of waiting) heard({ id, failed: why })
  }
}

const say = (worker: Worker, asked: Asked, given: Transferable[] = []): void => worker.postMessage(asked, given)
