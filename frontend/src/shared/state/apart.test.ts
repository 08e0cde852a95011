import { describe, expect, it } from 'vitest'
import { ApiError } from '@/shared/api/client'
import type { JsonObject } from '@/shared/recipe/words'
import { askAll } from './askAll'

const BODIES = [
  { model: 'x', methods: ['full', 'lora'], recipe: { a: 1 } },
  { model: 'x', methods: ['qlora'], recipe: { a: 2 } },
]
const refusing = (refused: readonly string[], status = 422) => {
  const asked: JsonObject[] = []
  const ask = async (body: JsonObject): Promise<string> => {
    asked.push(body)
    const bad = (body.methods as string[]).find((method) => refused.includes(method))
    if (bad) throw new ApiError({ title: bad, status, detail: `${bad} is not modelled so` })
    return (body.methods as string[]).join()
  }
  return { ask, asked }
}

describe('a question about several methods', () => {
  it('is asked as it is while nothing is refused', async () => {
    const { ask, asked } = refusing([])
    expect(await askAll(BODIES, ask)).toEqual({ answers: ['full,lora', 'qlora'], refused: {} })
    expect(asked).toEqual(BODIES)
  })

  it('leaves out what is refused, with the reason, and keeps the rest in its order', async () => {
    const { ask, asked } = refusing(['qlora'])
    const { answers, refused } = await askAll(BODIES, ask)
    expect(answers).toEqual(['full', 'lora'])
    expect(Object.keys(refused)).toEqual(['qlora'])
    expect(refused.qlora!.problem.detail).toBe('qlora is not modelled so')
    expect(asked.at(-1)).toEqual({ model: 'x', methods: ['qlora'], recipe: { a: 2 } })
    expect((await askAll(BODIES, refusing(['full']).ask)).answers).toEqual(['lora', 'qlora'])
  })

  it('has no answer where every method is refused', async () => {
    const { answers, refused } = await askAll(BODIES, refusing(['full', 'lora', 'qlora']).ask)
    expect(answers).toEqual([])
    expect(Object.keys(refused).sort()).toEqual(['full', 'lora', 'qlora'])
  })

  it('fails where it is not the settings that are refused', async () => {
    const { ask, asked } = refusing(['lora'], 429)
    await expect(askAll(BODIES, ask)).rejects.toBeInstanceOf(ApiError)
    expect(asked).toHaveLength(2)
    await expect(askAll(BODIES, () => Promise.reject(new TypeError('gone')))).rejects.toBeInstanceOf(TypeError)
  })
})
