/**
 * Follows one job of the server: live events, reconnects, and when streams do not get through, its state by polling.
 *
 * The browser repeats `Last-Event-ID` by itself when it reconnects, so nothing is lost and nothing comes twice.
 */
import { onScopeDispose, ref, shallowRef, type Ref } from 'vue'
import { ApiError, OfflineError, request, type Problem } from './client'

export type RunStatus = 'idle' | 'starting' | 'queued' | 'running' | 'reconnecting' | 'done' | 'cancelled' | 'failed'

export interface JobAnswer {
  id: string
  kind: string
  status: string
  place: number | null
  error: Problem | null
  spec: Record<string, unknown>
  result: unknown
}

export interface RunEvents {
  id: Ref<string | null>
  status: Ref<RunStatus>
  /** How many jobs wait before this one. */
  place: Ref<number | null>
  problem: Ref<Problem | null>
  start: (path: string, body: unknown) => Promise<void>
  /** Takes up a job that was started earlier, from its first event. */
  join: (id: string) => void
  /** Shows a job that may have ended long ago: its result at once, else its stream as `join`. */
  open: (id: string) => Promise<void>
  cancel: () => Promise<void>
  /** Follows no job any more; what it still answers is not heard. */
  leave: () => void
}

const FAILURES = 3
const POLL_MS = 2000

export function useRunEvents(types: readonly string[], received: (type: string, data: unknown) => void): RunEvents {
  const id = ref<string | null>(null)
  const status = ref<RunStatus>('idle')
  const place = ref<number | null>(null)
  const problem = shallowRef<Problem | null>(null)
  let source: EventSource | null = null
  let poll: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  /** What was asked for last: an answer to anything before it comes too late. */
  let turn = 0

  function close(): void {
    source?.close()
    source = null
    clearTimeout(poll)
  }
  function turnTo(job: string | null, now: RunStatus): number {
    close()
    id.value = job
    problem.value = null
    place.value = null
    status.value = now
    return (turn += 1)
  }
  onScopeDispose(() => {
    turn += 1
    close()
  })

  function ended(job: Pick<JobAnswer, 'status' | 'error'>): void {
    close()
    problem.value = job.error
    status.value = job.status === 'cancelled' ? 'cancelled' : job.status === 'finished' ? 'done' : 'failed'
  }

  async function ask(): Promise<void> {
    const mine = turn
    try {
      const job = await request<JobAnswer>('GET', `/api/jobs/${id.value}`)
      if (mine !== turn) return
      if (['queued', 'running'].includes(job.status)) {
        poll = setTimeout(() => void ask(), POLL_MS)
        return
      }
      if (job.result) received('result', job.result)
      ended(job)
    } catch (error) {
      if (mine !== turn) return
      if (error instanceof ApiError) ended({ status: 'failed', error: error.problem })
      else poll = setTimeout(() => void ask(), POLL_MS)
    }
  }

  function listen(): void {
    close()
    failures = 0
    source = new EventSource(`/api/jobs/${id.value}/events`)
    const read = (event: Event): unknown => {
      failures = 0
      return JSON.parse((event as MessageEvent<string>).data)
    }
    source.addEventListener('queued', (event) => {
      status.value = 'queued'
      place.value = (read(event) as { place: number | null }).place
    })
    for (const type of types)
      source.addEventListener(type, (event) => {
        status.value = 'running'
        received(type, read(event))
      })
    source.addEventListener('done', (event) => ended(read(event) as JobAnswer))
    source.addEventListener('error', (event) => {
      // The server's own `error` event carries data; a broken connection does not.
      if (event instanceof MessageEvent) {
        ended({ status: 'failed', error: JSON.parse(event.data as string) as Problem })
        return
      }
      failures += 1
      status.value = 'reconnecting'
      if (failures >= FAILURES || source?.readyState === EventSource.CLOSED) {
        close()
        void ask()
      }
    })
  }

  return {
    id,
    status,
    place,
    problem,
    async start(path, body) {
      const mine = turnTo(null, 'starting')
      try {
        const job = await request<{ id: string; place: number | null }>('POST', path, body)
        if (mine !== turn) return
        id.value = job.id
        place.value = job.place
        listen()
      } catch (error) {
        if (mine !== turn) return
        status.value = 'failed'
        problem.value =
          error instanceof ApiError
            ? error.problem
            : { title: 'offline', status: 0, code: error instanceof OfflineError ? 'offline' : undefined }
      }
    },
    join(job) {
      turnTo(job, 'starting')
      listen()
    },
    async open(job) {
      const mine = turnTo(job, 'starting')
      try {
        const found = await request<JobAnswer>('GET', `/api/jobs/${job}`)
        if (mine !== turn) return
        if (found.result) {
          received('result', found.result)
          ended(found)
        } else listen()
      } catch (error) {
        if (mine !== turn) return
        if (error instanceof ApiError) ended({ status: 'failed', error: error.problem })
        else listen()
      }
    },
    leave: () => void turnTo(null, 'idle'),
    async cancel() {
      if (id.value === null) return
      try {
        await request('DELETE', `/api/jobs/${id.value}`)
      } catch (error) {
        if (error instanceof ApiError) problem.value = error.problem
      }
    },
  }
}
