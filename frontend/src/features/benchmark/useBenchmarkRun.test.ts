import { afterEach, expect, it, vi } from 'vitest'
import { effectScope } from 'vue'
import recorded from './recorded/benchmark.json'
import type { Result } from './types'
import { useBenchmarkRun } from './useBenchmarkRun'

afterEach(() => void vi.unstubAllGlobals())

it('does not pass a recorded run off as the one that the address asked for', async () => {
  vi.stubGlobal('fetch', () =>
    Promise.resolve(
      new Response(JSON.stringify({ title: 'No', status: 404, code: 'job_not_found' }), {
        status: 404,
        headers: { 'content-type': 'application/json' },
      }),
    ),
  )
  const run = effectScope().run(() => useBenchmarkRun())!
  await run.open('unknown')
  expect(run.status.value).toBe('failed')
  run.show(recorded as unknown as Result)
  expect(run.result.value).not.toBeNull()
  expect([run.id.value, run.status.value, run.problem.value]).toEqual([null, 'idle', null])
})
