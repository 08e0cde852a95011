/** The forgetting experiment: a recorded run that ships with the program, or one that runs now. Same data, same picture. */
import { useQuery } from '@tanstack/vue-query'
import { computed, ref, shallowRef, type ComputedRef, type Ref } from 'vue'
import { request } from '@/shared/api/client'
import { useRunEvents, type RunEvents } from '@/shared/api/useRunEvents'
import type { Start } from './StartForm.vue'

export interface Figures {
  loss: number
  accuracy: number
}
export interface Point {
  phase: 'base' | 'sweep' | 'main'
  arm: string
  seed: number
  step: number
  old: Figures
  new: Figures
}
export interface Spread {
  mean: number
  low: number | null
  high: number | null
  values: number[]
}
export interface Arm {
  arm: string
  method: string
  rank: number | null
}
export interface ArmSummary extends Arm {
  learning_rate: number
  forgetting_nats: Spread
  forgetting_points: Spread
  learned_nats: Spread
  old_loss: Spread
  new_loss: Spread
  old_accuracy: Spread
  new_accuracy: Spread
}
export interface EnergyRow {
  rank: number
  share: Spread
  random_share: number
}
export interface TruncatedRow {
  rank: number
  old_loss: Spread
  new_loss: Spread
}
export interface ModuleSpectrum {
  module: string
  shape: number[]
  relative_norm: number
  singular_values: number[]
  effective_rank: number
  rank_90: number
  rank_99: number
}
export interface Spectrum {
  modules: ModuleSpectrum[]
  energy: EnergyRow[]
  truncated: TruncatedRow[]
}
export interface Cost {
  arm: string
  trainable_parameters: number
  measured: {
    weights_bytes: number
    adapter_bytes: number
    gradients_bytes: number
    optimizer_state_bytes: number
    peak_bytes: number
    step_seconds: { median: number }
    step_processor_seconds: { median: number } | null
  }
  /** Null where the calculator has no such method; an error where it refused. */
  predicted: { optimizer_state_bytes?: number; peak_bytes?: number; error?: string } | null
}
export interface RankRow {
  rank: number
  arm: string
  new_loss: Spread
  gap_to_truncation: Spread | null
}
export interface ForgettingPlan {
  arms: Arm[]
  steps: number
  budget_seconds: number
  old: { name: string; description: string }
  new: { name: string; description: string }
}
export interface ForgettingResult {
  budget: string
  seconds: number
  date: string
  machine: Record<string, string | number | null>
  model: { parameters: number }
  stopped_early: boolean
  /** The arm of LoRA that is compared with full fine-tuning. */
  reference_arm: string
  summary: {
    step: number
    seeds: number[]
    base: { old: Figures; new: Figures }
    arms: ArmSummary[]
    /** Each arm against full fine-tuning. */
    comparisons: { arm: string; at_equal_learning: { forgetting_nats: Spread | null } | null }[]
  }
  spectrum: { full: Spectrum; linear: Spectrum }
  rank_curve: RankRow[]
  costs: Cost[]
  findings: { id: string; en: string; zh: string }[]
}
export interface Run {
  plan: ForgettingPlan | null
  points: Point[]
  result: ForgettingResult | null
}

export interface Forgetting extends RunEvents {
  shown: ComputedRef<Run | null>
  live: ComputedRef<boolean>
  active: ComputedRef<boolean>
  fraction: Ref<number | null>
  phase: Ref<string>
  recordedRuns: ComputedRef<Run[]>
  begin: (start: Start) => Promise<void>
  /** Shows another recorded run. */
  choose: (index: number) => void
  chosen: Ref<number | null>
  back: () => void
}

export function useForgetting(): Forgetting {
  const recorded = useQuery({
    queryKey: ['forgetting', 'recorded'],
    queryFn: ({ signal }) => request<{ runs: Run[] }>('GET', '/api/forgetting/recorded', undefined, signal),
    staleTime: Infinity,
  })
  const recordedRuns = computed(() => recorded.data.value?.runs ?? [])
  const chosen = ref<number | null>(null)
  const mine = shallowRef<Run | null>(null)
  const fraction = ref<number | null>(null)
  const phase = ref('')
  const run = useRunEvents(['plan', 'progress', 'point', 'choice', 'spectrum', 'cost', 'result'], (type, data) => {
    const now = mine.value ?? { plan: null, points: [], result: null }
    if (type === 'plan') mine.value = { ...now, plan: data as ForgettingPlan }
    else if (type === 'point') mine.value = { ...now, points: [...now.points, data as Point] }
    else if (type === 'result') mine.value = { ...now, result: data as ForgettingResult }
    else if (type === 'progress') {
      const progress = data as { phase: string; done: number; total: number }
      phase.value = progress.phase
      fraction.value = progress.done / progress.total
    }
  })
  const active = computed(() => ['starting', 'queued', 'running', 'reconnecting'].includes(run.status.value))
  return {
    ...run,
    // The longest recorded run has the most seeds; a live one is shown as soon as it has points.
    shown: computed(() =>
      (mine.value?.points.length ?? 0) > 1 ? mine.value : (recordedRuns.value.at(chosen.value ?? -1) ?? null),
    ),
    live: computed(() => (mine.value?.points.length ?? 0) > 1),
    active,
    fraction,
    phase,
    chosen,
    recordedRuns,
    choose(index) {
      chosen.value = index
    },
    async begin(start) {
      mine.value = null
      fraction.value = null
      await run.start('/api/forgetting', start)
    },
    back() {
      mine.value = null
    },
  }
}
