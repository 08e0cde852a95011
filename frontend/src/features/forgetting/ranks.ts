/** What a run says about one rank: energy kept, loss of the truncated update, loss of LoRA trained at that rank. */
import { failed } from './findings'
import type { ForgettingResult, RankRow } from './useForgetting'

export interface AtRank {
  share: number
  random: number
  cut: number
  whole: number
  base: number
  lora: number | null
}

/** The ranks that were measured, without 0: a slider with logarithmic stops cannot hold it. */
export const recordedRanks = (result: ForgettingResult): number[] =>
  result.spectrum.linear.energy.map((row) => row.rank).filter((rank) => rank > 0)

/** LoRA at each rank, without runs that went wrong. */
export function trainedRanks(result: ForgettingResult): RankRow[] {
  const wrong = result.summary.arms.filter(failed).map((arm) => arm.arm)
  return result.rank_curve.filter((row) => !wrong.includes(row.arm))
}

export function truncationAt(result: ForgettingResult, rank: number): AtRank | null {
  const { energy, truncated } = result.spectrum.linear
  const kept = energy.find((row) => row.rank === rank)
  const cut = truncated.find((row) => row.rank === rank)
  const whole = truncated.at(-1)
  if (!kept || !cut || !whole) return null
  const lora = trainedRanks(result).find((row) => row.rank === rank)
  return {
    share: kept.share.mean,
    random: kept.random_share,
    cut: cut.new_loss.mean,
    whole: whole.new_loss.mean,
    base: result.summary.base.new.loss,
    lora: lora?.new_loss.mean ?? null,
  }
}
