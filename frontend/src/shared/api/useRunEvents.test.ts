import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { effectScope } from 'vue'
import { useRunEvents, type RunEvents } from './useRunEvents'

/** A stream that says nothing. */
class Silent extends EventTarget {
  static CLOSED = 2
  readyState = 1
  close(): void {}
}
const json = (status: number, body: unknown): Response =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } })
const refusal = { title: 'No', status: 503, code: 'lab_missing' }
const done = (id: string): unknown => ({ id, status: 'finished', place: null, error: null, result: { of: id } })

/** Answers requests in the order in which the test wants them. */
function server(): Map<string, (answer: Response) => void> {
  const asked = new Map<string, (answer: Response) => void>()
  vi.stubGlobal('fetch', (path: string, init?: RequestInit) => {
    return new Promise<Response>((resolve) => asked.set(`${init?.method ?? 'GET'} ${path}`, resolve))
  })
  return asked
}
const rest = async (): Promise<void> => void (await new Promise((done) => setTimeout(done, 0)))

describe('a run', () => {
  const scope = effectScope()
  let received: unknown[] = []
  let run: RunEvents
  beforeEach(() => {
    vi.stubGlobal('EventSource', Silent)
    received = []
    run = scope.run(() => useRunEvents(['point'], (_, data) => received.push(data)))!
  })
  afterEach(() => void vi.unstubAllGlobals())

  it('that could not start does not go by the name of the one before', async () => {
    const asked = server()
    run.join('before')
    const started = run.start('/api/benchmarks', {})
    expect(run.id.value).toBeNull()
    asked.get('POST /api/benchmarks')!(json(503, refusal))
    await started
    expect(run.status.value).toBe('failed')
    expect(run.id.value).toBeNull()
  })
  it('is left for good: an answer under way changes nothing', async () => {
    const asked = server()
    const opened = run.open('unknown')
    run.leave()
    asked.get('GET /api/jobs/unknown')!(json(404, { ...refusal, code: 'job_not_found' }))
    await opened
    expect([run.id.value, run.status.value, run.problem.value]).toEqual([null, 'idle', null])
  })
  it('gives way to one that is opened while it starts', async () => {
    const asked = server()
    const started = run.start('/api/benchmarks', {})
    const opened = run.open('older')
    asked.get('POST /api/benchmarks')!(json(200, { id: 'newer', place: 0 }))
    await rest()
    asked.get('GET /api/jobs/older')!(json(200, done('older')))
    await Promise.all([started, opened])
    expect(run.id.value).toBe('older')
    expect(received).toEqual([{ of: 'older' }])
    expect(run.status.value).toBe('done')
  })
})
