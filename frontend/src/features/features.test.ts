import { expect, it } from 'vitest'
import builtIn from '@/shared/api/builtInPlans.json'
import { evaluate, type Plan } from '@/shared/api/plan'
import { setWord } from '@/shared/recipe/set'
import { DEFAULTS, formatQuery, parseQuery, type Part2Settings } from '@/shared/url/part2Query'
import { applyChange, canApply } from '@/shared/recipe/changes'
import { questions } from './quiz/questions'
import { at, layersAt, slots, sum } from './timeline/layout'

const plans = (builtIn as unknown as { plans: Plan[] }[])[0]!.plans
const valuesAt = (rank: number, length: number) =>
  new Map(plans.map((plan) => [plan.method, evaluate(plan, { micro_batch_size: 1, sequence_length: length, rank })]))

it('quiz answers follow the numbers', () => {
  const quiz = questions({
    values: valuesAt(8, 2048),
    at: (other) => valuesAt(other.rank ?? 8, other.sequence_length ?? 2048),
    rank: 8,
    length: 2048,
  })
  const answer = (id: string) => {
    const question = quiz.find((item) => item.id === id)!
    return question.options[question.answer]!.value
  }
  expect(quiz).toHaveLength(6)
  expect(answer('trainable')).toBe(4_194_304)
  expect(answer('double')).toBe(2)
  expect(answer('smallest')).toBe('qlora')
  for (const question of quiz)
    expect(new Set(question.options.map((option) => option.value)).size).toBe(question.options.length)
})

it('the step fills its time axis from end to end', () => {
  for (const value of valuesAt(8, 2048).values()) {
    const found = slots(value)
    expect(found[0]!.from).toBe(0)
    expect(found.at(-1)!.to).toBeCloseTo(1, 9)
    found.slice(1).forEach((slot, index) => expect(slot.from).toBeCloseTo(found[index]!.to, 9))
    for (const place of [0, 0.3, 0.9, 1]) expect(sum(at(found, place)!.parts)).toBeLessThanOrEqual(value.peakBytes)
  }
})

it('names the layer of a run that the axis is at, and its own bytes', () => {
  for (const value of valuesAt(8, 2048).values()) {
    const found = slots(value)
    for (const slot of found.filter(({ repeat }) => repeat > 1)) {
      const whole = slot.label.split('.').slice(-3).map(Number)
      const ends = slot.phase === 'backward' ? [whole[2], whole[0]] : [whole[0], whole[2]]
      const width = (slot.to - slot.from) / (slot.repeat - 1)
      const [first, second, last] = [slot.from + 1e-9, slot.from + width, slot.to - 1e-9].map((place) =>
        at(found, place)!,
      )
      expect([first, last].map((one) => layersAt(one!.slot, one!.index)![0])).toEqual(ends)
      expect(second!.index).toBe(1)
      expect(sum(second!.parts)).toBeCloseTo(
        sum(slot.first) + (sum(slot.last) - sum(slot.first)) / (slot.repeat - 1),
        0,
      )
    }
    expect(found.filter(({ repeat }) => repeat > 1).length).toBeGreaterThan(1)
  }
  const slot = { phase: 'forward', repeat: 4, from: 0, to: 1, first: [0], last: [0] }
  expect(layersAt({ ...slot, label: 'model.layers.2..9' }, 1)).toEqual([4, 5])
  expect(layersAt({ ...slot, label: 'loss', repeat: 1 }, 0)).toBeNull()
})

it('advice is applied whatever word it is about, and only within limits', () => {
  const settings: Part2Settings = { ...DEFAULTS }
  const advised: [string, unknown][] = [
    ['gradient_checkpointing', false],
    ['sequence_length', 1024],
    ['method', 'qlora'],
    ['optimizer', 'paged_adamw_8bit'],
    ['fused_kernels', true],
    ['prepare_kbit', false],
    ['target_modules', ['q_proj', 'v_proj']],
  ]
  for (const [field, to] of advised) {
    expect([field, canApply({ field, to })]).toEqual([field, true])
    applyChange(settings, { field, to })
  }
  expect(settings).toMatchObject({ length: 1024, method: 'qlora' })
  expect(settings.words).toEqual({
    gradient_checkpointing: false,
    optimizer: 'paged_adamw_8bit',
    fused_kernels: true,
    prepare_kbit: false,
    target_modules: ['q_proj', 'v_proj'],
  })
  const refused: [string, unknown][] = [
    ['rank', 0],
    ['rank', 2.5],
    ['offload', 'magic'],
    ['method', 'magic'],
    ['magic', 1],
  ]
  expect(refused.map(([field, to]) => canApply({ field, to }))).toEqual(refused.map(() => false))
})

it('under a trainer a default that was said is kept, for what is left open is the trainer’s', () => {
  const settings: Part2Settings = { ...DEFAULTS }
  setWord(settings, 'gradient_checkpointing', true)
  expect(settings.words).toEqual({})
  setWord(settings, 'trainer', 'trl')
  setWord(settings, 'gradient_checkpointing', true)
  setWord(settings, 'optimizer', 'sgd')
  expect(settings.words).toEqual({ trainer: 'trl', gradient_checkpointing: true, optimizer: 'sgd' })
  expect(parseQuery(formatQuery(settings)).settings).toEqual(settings)
  setWord(settings, 'gradient_checkpointing', undefined)
  expect(settings.words).toEqual({ trainer: 'trl', optimizer: 'sgd' })
  setWord(settings, 'gradient_checkpointing', true)
  setWord(settings, 'trainer', 'none')
  expect(settings.words).toEqual({ optimizer: 'sgd' })
})

it('several GPUs bring a strategy along, and one takes it away', () => {
  const settings: Part2Settings = { ...DEFAULTS }
  setWord(settings, 'gpus', 8)
  expect(settings.words).toEqual({ gpus: 8, strategy: 'fsdp2' })
  setWord(settings, 'strategy', 'zero2')
  setWord(settings, 'gpus', 4)
  expect(settings.words).toEqual({ gpus: 4, strategy: 'zero2' })
  setWord(settings, 'gpus', 1)
  expect(settings.words).toEqual({})
})
