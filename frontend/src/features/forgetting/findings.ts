/** What a run says in three sentences, and which of its arms say nothing because they did not train. */
import type { ArmSummary, ForgettingResult, Spread } from './useForgetting'

/** Whether an interval leaves zero out; with one seed there is none. */
export const settled = (value: Spread): boolean => value.low !== null && (value.low > 0 || (value.high ?? 0) < 0)

/** It did not surely learn the new text: what it forgot is that of a run that went wrong. */
export const failed = (arm: Pick<ArmSummary, 'learned_nats'>): boolean =>
  arm.learned_nats.mean <= 0 || (arm.learned_nats.low !== null && !settled(arm.learned_nats))

export interface Plain {
  full: number
  lora: { rank: number; nats: number }
  learned: { full: number; lora: number }
  /** Who forgot more when both had learned the new text equally well; null where that was not reached. */
  equal: 'less' | 'more' | 'open' | null
  mixed: number | null
  failed: ArmSummary[]
}

export function plainOf(result: ForgettingResult): Plain | null {
  const { arms, comparisons } = result.summary
  const full = arms.find((arm) => arm.arm === 'full')
  const lora = arms.find((arm) => arm.arm === result.reference_arm)
  if (!full || !lora || lora.rank === null || failed(full) || failed(lora)) return null
  const equal = comparisons.find((row) => row.arm === lora.arm)?.at_equal_learning?.forgetting_nats ?? null
  const mixed = arms.find((arm) => arm.arm === 'mixed')
  return {
    full: full.forgetting_nats.mean,
    lora: { rank: lora.rank, nats: lora.forgetting_nats.mean },
    learned: { full: full.learned_nats.mean, lora: lora.learned_nats.mean },
    equal: equal && (!settled(equal) ? 'open' : equal.mean < 0 ? 'less' : 'more'),
    mixed: mixed && !failed(mixed) ? mixed.forgetting_nats.mean : null,
    failed: arms.filter(failed),
  }
}
