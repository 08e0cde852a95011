import { describe, expect, it } from 'vitest'
import builtIn from '@/shared/api/builtInPlans.json'
import { DEFAULTS } from '@/shared/url/part2Query'
import { bodyOf, methodsOf, recipeOf } from './requests'

describe('requests', () => {
  it('of the built-in plans are those the page makes at its defaults', () => {
    for (const { body } of builtIn) expect(body).toEqual(bodyOf({ model: body.model }, { ...DEFAULTS }))
    expect(JSON.stringify(builtIn[0]!.body)).toBe(
      JSON.stringify(bodyOf({ model: builtIn[0]!.body.model }, { ...DEFAULTS })),
    )
  })

  it('ask for the chosen method beside the three', () => {
    expect(methodsOf({ ...DEFAULTS, method: 'qlora' })).toEqual(['full', 'lora', 'qlora'])
    expect(methodsOf({ ...DEFAULTS, method: 'dora' })).toEqual(['full', 'lora', 'qlora', 'dora'])
  })

  it('let alpha follow the rank until it is set', () => {
    expect(recipeOf({ ...DEFAULTS, rank: 64 }).lora).toMatchObject({ rank: 64, alpha: 128 })
    expect(recipeOf({ ...DEFAULTS, rank: 64, alpha: 16 }).lora).toMatchObject({ rank: 64, alpha: 16 })
    expect(recipeOf({ ...DEFAULTS, targets: ['all-linear'] }).lora).toMatchObject({ target_modules: 'all-linear' })
  })
})
