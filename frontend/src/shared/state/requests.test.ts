import { describe, expect, it } from 'vitest'
import builtIn from '@/shared/api/builtInPlans.json'
import { DEFAULTS } from '@/shared/url/part2Query'
import { FIRST_QUESTIONS } from '@/shared/api/firstQuestions'
import { bodiesOf, fitBody, lightMethod, methodsOf, recipeOf } from './requests'

describe('requests', () => {
  it('of a page at its defaults are those that are answered while it is built', () => {
    const bodies = FIRST_QUESTIONS.flatMap(([, path, body]) => (body ? [[path, JSON.stringify(body)]] : []))
    const [plan] = bodiesOf({ model: DEFAULTS.model }, { ...DEFAULTS })
    const { model, recipe } = plan!
    expect(bodies).toEqual([
      ['/api/plan', JSON.stringify(plan)],
      ['/api/memory', JSON.stringify({ ...plan, gpu: DEFAULTS.gpu })],
      ['/api/parameters', JSON.stringify({ model, recipe, method: lightMethod({ ...DEFAULTS }) })],
      ['/api/fit', fitBody({ model: DEFAULTS.model }, { ...DEFAULTS }, 'lora')],
      ['/api/sweep', expect.any(String)],
    ])
  })

  it('of the built-in plans are those the page makes at its defaults', () => {
    for (const { body } of builtIn)
      expect(JSON.stringify(bodiesOf({ model: body.model }, { ...DEFAULTS }))).toBe(JSON.stringify([body]))
  })

  it('ask for the chosen method beside the three', () => {
    expect(methodsOf({ ...DEFAULTS, method: 'qlora' })).toEqual(['full', 'lora', 'qlora'])
    expect(methodsOf({ ...DEFAULTS, method: 'dora' })).toEqual(['full', 'lora', 'qlora', 'dora'])
  })

  it('say what is set, each word in its own place', () => {
    const words = { alpha: 16, target_modules: 'all-linear', optimizer: 'sgd', quantization: 'int8', gpus: 2 }
    expect(recipeOf({ ...DEFAULTS, rank: 64, words }, 'lora')).toEqual({
      micro_batch_size: 1,
      sequence_length: 2048,
      optimizer: 'sgd',
      lora: { rank: 64, alpha: 16, target_modules: 'all-linear' },
      quantization: { type: 'int8' },
      parallelism: { gpus: 2 },
    })
  })

  it('leave the base of LoRA as it is when words are about the packing of QLoRA', () => {
    const [unpacked, packed, ...rest] = bodiesOf(
      { model: 'x' },
      { ...DEFAULTS, method: 'dora', words: { prepare_kbit: false } },
    )
    expect(rest).toEqual([])
    expect(unpacked).toMatchObject({ methods: ['full', 'lora', 'dora'] })
    expect(unpacked!.recipe).not.toHaveProperty('quantization')
    expect(packed).toMatchObject({ methods: ['qlora'], recipe: { quantization: { prepare_kbit: false } } })
    expect(bodiesOf({ model: 'x' }, { ...DEFAULTS, words: { quantization: 'fp4', double_quant: false } })).toHaveLength(
      1,
    )
  })
})
