import { describe, expect, it } from 'vitest'
import { armStyle, machineText } from './arms'
import { recordedRanks, truncationAt } from './ranks'
import type { Arm, ForgettingResult, Spread } from './useForgetting'

const spread = (mean: number): Spread => ({ mean, low: mean - 0.1, high: mean + 0.1, values: [mean] })
const result = {
  summary: {
    step: 48,
    seeds: [0],
    base: { old: { loss: 4, accuracy: 0.2 }, new: { loss: 6, accuracy: 0.1 } },
    arms: [],
  },
  spectrum: {
    linear: {
      modules: [],
      energy: [0, 1, 8].map((rank) => ({ rank, share: spread(rank / 8), random_share: rank / 80 })),
      truncated: [0, 1, 8].map((rank) => ({ rank, old_loss: spread(4), new_loss: spread(6 - rank / 8) })),
    },
  },
  rank_curve: [{ rank: 1, arm: 'lora-r1', new_loss: spread(5.95), gap_to_truncation: spread(0.075) }],
} as unknown as ForgettingResult

describe('what a run says about one rank', () => {
  it('offers every measured rank but zero', () => {
    expect(recordedRanks(result)).toEqual([1, 8])
  })
  it('puts truncation and trained LoRA side by side', () => {
    expect(truncationAt(result, 1)).toEqual({ share: 0.125, random: 0.0125, cut: 5.875, whole: 5, base: 6, lora: 5.95 })
    expect(truncationAt(result, 8)?.lora).toBeNull()
    expect(truncationAt(result, 5)).toBeNull()
  })
})

describe('arms', () => {
  const arms: Arm[] = ['full', 'mixed', 'lora-r8'].map((arm) => ({ arm, method: 'full', rank: null }))
  it('draws full fine-tuning in its own colour and no two arms alike', () => {
    const styles = arms.map((arm) => armStyle(arm, arms))
    expect(styles[0]).toEqual({ colour: 'var(--full)', dash: 'none' })
    expect(new Set(styles.map((style) => style.colour)).size).toBe(3)
  })
  it('leaves out what is not known of the machine', () => {
    const facts = { processor: 'CPU', cores: 2, load_average: null, torch: '2.13', loralens: '1' }
    const said = ((key: string, n: number) => `${n} ${key}`) as Parameters<typeof machineText>[1]
    expect(machineText(facts, said)).toBe('CPU\u00a0· 2 benchmark.cores\u00a0· PyTorch 2.13')
  })
})
