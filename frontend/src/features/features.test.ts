import { expect, it } from 'vitest'
import builtIn from '@/shared/api/builtInPlans.json'
import { evaluate, type Plan } from '@/shared/api/plan'
import { DEFAULTS, type Part2Settings } from '@/shared/url/part2Query'
import { applyChange, canApply } from './fit/fitAdvice'
import { questions } from './quiz/questions'
import { at, slots, sum } from './timeline/layout'

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

it('advice is applied where there is a control for it, and only within limits', () => {
  const settings: Part2Settings = { ...DEFAULTS }
  applyChange(settings, 'gradient_checkpointing', true)
  applyChange(settings, 'sequence_length', 1024)
  applyChange(settings, 'method', 'qlora')
  applyChange(settings, 'optimizer', 'paged_adamw_8bit')
  expect(settings).toMatchObject({ checkpointing: true, length: 1024, method: 'qlora', optimizer: 'paged8bit' })
  expect([
    canApply('rank', 0),
    canApply('rank', 2.5),
    canApply('offload', 'optimizer'),
    canApply('method', 'magic'),
  ]).toEqual([false, false, false, false])
})
