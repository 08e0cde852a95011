import { describe, expect, it } from 'vitest'
import builtIn from './builtInPlans.json'
import { covers, evaluate, type Plan } from './plan'

/** Two moments and two categories, small enough to check by hand. */
const plan: Plan = {
  model: { id: 'm', name: 'M', family: 'f', parameters: 100, left_out: [] },
  method: 'lora',
  regime: '',
  variables: ['micro_batch_size', 'sequence_length', 'rank'],
  valid: { micro_batch_size: [1, 8], sequence_length: [1, 64], rank: [1, 16] },
  monomials: [
    [0, 0, 0],
    [0, 0, 1],
    [1, 1, 0],
    [1, 2, 1],
  ],
  categories: ['weights', 'activations'],
  parameters: { total: [100, 3, 0, 0], trainable: [0, 3, 0, 0] },
  storage: { checkpoint_bytes: [200, 0, 0, 0], adapter_file_bytes: [0, 6, 0, 0] },
  moments: [
    {
      phase: 'forward',
      label: 'a',
      bytes: [
        [200, 0, 0, 0],
        [0, 0, 5, 0],
      ],
    },
    {
      phase: 'backward',
      label: 'b',
      bytes: [
        [200, 7, 0, 0],
        [0, 0, 0, 1],
      ],
    },
  ],
  timeline: [
    {
      phase: 'forward',
      label: 'layer 0',
      repeat: 1,
      first: [
        [200, 0, 0, 0],
        [0, 0, 1, 0],
      ],
      last: [
        [200, 0, 0, 0],
        [0, 0, 2, 0],
      ],
    },
  ],
}

describe('a plan', () => {
  it('is evaluated monomial by monomial', () => {
    const value = evaluate(plan, { micro_batch_size: 2, sequence_length: 3, rank: 4 })
    // forward: 200 + 5·2·3 = 230; backward: 200 + 7·4 + 2·9·4 = 300
    expect(value.peakBytes).toBe(300)
    expect(value.peakPhase).toBe('backward')
    expect(value.phases.map(({ phase, bytes }) => ({ phase, bytes }))).toEqual([
      { phase: 'forward', bytes: 230 },
      { phase: 'backward', bytes: 300 },
    ])
    expect(value.breakdown).toEqual([
      { category: 'weights', bytes: 228 },
      { category: 'activations', bytes: 72 },
    ])
    expect(value.totalParameters).toBe(112)
    expect(value.trainableParameters).toBe(12)
    expect(value.trainablePercent).toBeCloseTo(1200 / 112, 12)
    expect(value.adapterFileBytes).toBe(24)
    expect(value.timeline[0]).toMatchObject({ first: [200, 6], last: [200, 12] })
  })

  it('takes the peak where it is, as the numbers move', () => {
    expect(evaluate(plan, { micro_batch_size: 8, sequence_length: 1, rank: 1 }).peakPhase).toBe('forward')
  })

  it('knows where it holds', () => {
    expect(covers(plan, { micro_batch_size: 8, sequence_length: 64, rank: 16 })).toBe(true)
    expect(covers(plan, { micro_batch_size: 9, sequence_length: 64, rank: 16 })).toBe(false)
    expect(covers(plan, { micro_batch_size: 8, sequence_length: 64, rank: 0 })).toBe(false)
    const aligned: Plan = { ...plan, remainders: { sequence_length: [16, 8] } }
    expect(covers(aligned, { micro_batch_size: 8, sequence_length: 24, rank: 16 })).toBe(true)
    expect(covers(aligned, { micro_batch_size: 8, sequence_length: 32, rank: 16 })).toBe(false)
  })
})

describe('the plans that ship with the page', () => {
  const plans = builtIn as unknown as { body: { model: string }; plans: Plan[] }[]
  const seven = plans.find((row) => row.body.model === 'llama-2-7b')!.plans

  it('hold the exact counts of Llama-2-7B', () => {
    const at = { micro_batch_size: 1, sequence_length: 2048, rank: 8 }
    const [full, lora] = ['full', 'lora'].map((method) =>
      evaluate(
        seven.find((item) => item.method === method)!,
        at,
      ),
    )
    expect(full!.trainableParameters).toBe(6_738_415_616)
    expect(lora!.trainableParameters).toBe(4_194_304)
    expect(lora!.totalParameters).toBe(6_742_609_920)
  })

  it('grow with the rank, the length and nothing else here', () => {
    for (const { plans: row } of plans)
      for (const item of row.filter((other) => other.method !== 'full')) {
        const peak = (rank: number, sequence_length: number): number =>
          evaluate(item, { micro_batch_size: 1, sequence_length, rank }).peakBytes
        expect(peak(16, 2048)).toBeGreaterThan(peak(8, 2048))
        expect(peak(8, 4096)).toBeGreaterThan(peak(8, 2048))
      }
  })

  it('split every peak into its categories', () => {
    for (const { plans: row } of plans)
      for (const item of row) {
        const value = evaluate(item, { micro_batch_size: 1, sequence_length: 1000, rank: 5 })
        expect(value.breakdown.reduce((sum, part) => sum + part.bytes, 0)).toBe(value.peakBytes)
        expect(Number.isSafeInteger(value.peakBytes)).toBe(true)
      }
  })
})
