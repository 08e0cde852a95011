import { expect, it } from 'vitest'
import builtIn from '@/shared/api/builtInPlans.json'
import { evaluate, type Plan } from '@/shared/api/plan'
import { mostElsewhere } from './most'

it('full fine-tuning has gradients, though none at its peak', () => {
  const plans = (builtIn as unknown as { plans: Plan[] }[]).flatMap((row) => row.plans)
  for (const plan of plans.filter((one) => one.method === 'full')) {
    const values = evaluate(plan, { micro_batch_size: 1, sequence_length: 2048, rank: 8 })
    const { bytes } = values.breakdown.find((part) => part.category === 'gradients')!
    const found = mostElsewhere(values).find((part) => part.category === 'gradients')
    if (bytes === 0) expect(found!.bytes).toBeGreaterThan(2 * values.totalParameters - 1)
    else expect(found).toBeUndefined()
  }
})
