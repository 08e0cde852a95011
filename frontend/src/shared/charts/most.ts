/** Kinds of bytes that are next to nothing at the peak, with the most that they come to at another moment. */
import type { Category, PlanValues } from '@/shared/api/plan'

const NOTHING = 2 ** 20

export function mostElsewhere(values: PlanValues): { category: Category; bytes: number }[] {
  return values.breakdown.flatMap(({ category, bytes }, index) => {
    const most = Math.max(
      ...values.timeline.flatMap((segment) => [segment.first[index]!, segment.last[index]!]),
      // Within a layer or the loss more may be held than after it.
      ...values.phases.map((row) => row.breakdown[index]!.bytes),
    )
    return bytes < NOTHING && most >= NOTHING ? [{ category, bytes: most }] : []
  })
}
