/** The benchmark's events as reactive state. Shapes are those of the API's schema. */
import { computed, ref, shallowRef, type ComputedRef, type Ref } from 'vue'
import { useRunEvents, type RunEvents } from '@/shared/api/useRunEvents'

export interface Interval {
  median: number
  q1: number
  q3: number
}

export interface BenchmarkRow {
  id: string
  name: string
  group: string
  available: boolean
  reason: string | null
  seconds: Interval | null
  ratio: Interval | null
  error: number | null
  error_ok: boolean | null
}

export interface BenchmarkPoint {
  settings: Record<string, unknown>
  rows: BenchmarkRow[]
  noise: Interval | null
  recommendation: { variant: string; name: string; ratio: number | null; reason: string } | null
  clock: string
  rounds: number
  warnings: string[]
}

export interface BenchmarkResult {
  request: Record<string, unknown>
  started_at: string
  elapsed_seconds: number
  machine: Record<string, unknown>
  points: BenchmarkPoint[]
  warnings: string[]
}

interface Progress {
  fraction: number
  eta_seconds: number
  label: string
  ratios: Record<string, number>
}

export interface BenchmarkRun extends RunEvents {
  progress: Ref<Progress | null>
  names: Ref<Record<string, string>>
  machine: Ref<Record<string, unknown> | null>
  point: Ref<BenchmarkPoint | null>
  result: Ref<BenchmarkResult | null>
  active: ComputedRef<boolean>
  clear: () => void
}

export function useBenchmarkRun(): BenchmarkRun {
  const progress = shallowRef<Progress | null>(null)
  const names = ref<Record<string, string>>({})
  const machine = shallowRef<Record<string, unknown> | null>(null)
  const point = shallowRef<BenchmarkPoint | null>(null)
  const result = shallowRef<BenchmarkResult | null>(null)
  const run = useRunEvents(['started', 'progress', 'roofline', 'point', 'skipped', 'result'], (type, data) => {
    if (type === 'started') {
      const started = data as { variants: { id: string; name: string }[]; machine: Record<string, unknown> }
      names.value = Object.fromEntries(started.variants.map((variant) => [variant.id, variant.name]))
      machine.value = started.machine
    } else if (type === 'progress') progress.value = data as Progress
    else if (type === 'point') point.value = data as BenchmarkPoint
    else if (type === 'result') {
      result.value = data as BenchmarkResult
      point.value = result.value.points.at(-1) ?? point.value
      machine.value = result.value.machine
    }
  })
  return {
    ...run,
    progress,
    names,
    machine,
    point,
    result,
    active: computed(() => ['starting', 'queued', 'running', 'reconnecting'].includes(run.status.value)),
    clear() {
      progress.value = null
      point.value = null
      result.value = null
    },
  }
}
