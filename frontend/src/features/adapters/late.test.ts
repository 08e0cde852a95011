/** Answers that come late: what they belong to is no longer there. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { effectScope } from 'vue'
import type { Given } from './forms'
import { useInspector } from './useInspector'
import { useTools } from './useTools'

const json = (body: unknown, status = 200): Response =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } })
const refused = (): Response => json({ title: 'No', status: 422, code: 'invalid' }, 422)
const rest = async (): Promise<void> => void (await new Promise((done) => setTimeout(done, 0)))
const given = (name: string): Given => ({ name, config: null, weights: null, id: name })

let asked: { path: string; answer: (response: Response) => void }[] = []
beforeEach(() => {
  asked = []
  vi.stubGlobal(
    'fetch',
    (path: string) => new Promise<Response>((answer) => asked.push({ path: String(path), answer })),
  )
})
afterEach(() => void vi.unstubAllGlobals())

describe('the inspector', () => {
  const inspector = effectScope().run(() => useInspector())!
  const reportOf = (id: string | null): unknown => ({ id, rank: 4 })

  it('shows no report under the name of an adapter that was refused', async () => {
    const first = inspector.look('/api/adapters/kept/a')
    asked[0]!.answer(json(reportOf('a')))
    await first
    expect(inspector.report.value?.id).toBe('a')
    expect(inspector.resizable.value).toBe(true)
    const second = inspector.look('/api/adapters/kept/b')
    expect(inspector.report.value).toBeNull()
    asked[1]!.answer(refused())
    await second
    expect(inspector.problem.value?.status).toBe(422)
    await inspector.resize(2)
    expect(asked.length).toBe(2)
  })
  it('shows what was chosen last, however long it takes', async () => {
    const slow = inspector.look('/api/adapters/kept/a')
    const quick = inspector.look('/api/adapters/kept/b')
    asked[1]!.answer(json(reportOf('b')))
    await quick
    expect(inspector.busy.value).toBe(false)
    asked[0]!.answer(json(reportOf('a')))
    await slow
    expect(inspector.report.value?.id).toBe('b')
  })
  it('says of an adapter of which it has no files that it cannot be resized', async () => {
    const looked = inspector.look('/api/adapters/loaded/email')
    asked[0]!.answer(json(reportOf(null)))
    await looked
    expect(inspector.resizable.value).toBe(false)
  })
  it('can resize what was dropped', async () => {
    const files = ['adapter_config.json', 'adapter_model.safetensors'].map((name) => new File(['x'], name))
    const dropped = inspector.drop(files, 'two files')
    asked[0]!.answer(json(reportOf(null)))
    await dropped
    expect(inspector.resizable.value).toBe(true)
  })
})

describe('the tools', () => {
  const tools = effectScope().run(() => useTools())!

  it('drop the answer about files that were taken away meanwhile', async () => {
    const late = tools.run('doctor', [given('a')], {}, null)
    tools.clear()
    expect(tools.busy.value).toBe(false)
    const now = tools.run('doctor', [given('b')], {}, null)
    asked[0]!.answer(json({ findings: ['a'] }))
    await late
    expect(tools.diagnosis.value).toBeNull()
    expect(tools.busy.value).toBe(true)
    asked[1]!.answer(json({ findings: ['b'] }))
    await now
    expect(tools.diagnosis.value).toEqual({ findings: ['b'] })
    expect(tools.busy.value).toBe(false)
  })
  it('make no file for nobody, and say no refusal of what was asked before', async () => {
    const made = vi.spyOn(URL, 'createObjectURL')
    const merging = tools.run('merge', [given('a'), given('b')], {}, null)
    tools.clear()
    asked[0]!.answer(new Response('zip'))
    await merging
    expect(made).not.toHaveBeenCalled()
    const converting = tools.run('convert', [given('a')], {}, null)
    tools.clear()
    asked[1]!.answer(refused())
    await converting
    await rest()
    expect(tools.problem.value).toBeNull()
  })
})
