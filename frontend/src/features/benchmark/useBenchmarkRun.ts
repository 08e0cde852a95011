/** One run as reactive state: what was planned, the points as they land, and the result. */
import { computed, ref, shallowRef, type ComputedRef, type Ref } from 'vue'
import { useRunEvents, type RunEvents } from '@/shared/api/useRunEvents'
import type { Axis, Mode, Point, Progress, Request, Result, Skipped, Started, Value } from './types'

export interface BenchmarkRun extends RunEvents {
  request: Ref<Request | null>
  progress: Ref<Progress | null>
  machine: Ref<Record<string, unknown> | null>
  points: Ref<Point[]>
  skipped: Ref<Skipped[]>
  result: Ref<Result | null>
  axis: ComputedRef<Axis | null>
  mode: ComputedRef<Mode>
  /** All values of the swept axis, in order, measured or not. */
  values: ComputedRef<Value[]>
  active: ComputedRef<boolean>
  begin: (body: Partial<Request>) => Promise<void>
  /** A run that comes with the page. */
  show: (recorded: Result) => void
}

export function useBenchmarkRun(): BenchmarkRun {
  const asked = shallowRef<Request | null>(null)
  const progress = shallowRef<Progress | null>(null)
  const machine = shallowRef<Record<string, unknown> | null>(null)
  const points = shallowRef<Point[]>([])
  const skipped = shallowRef<Skipped[]>([])
  const result = shallowRef<Result | null>(null)
  const planned = ref<Value[]>([])
  const known = computed(() =>
    [...points.value.map((point) => point.value), ...skipped.value.map((item) => item.value)].filter(
      (value): value is Value => value !== null,
    ),
  )

  function take(whole: Result): void {
    result.value = whole
    asked.value = whole.request
    machine.value = whole.machine
    points.value = whole.points
    skipped.value = whole.skipped
  }

  const run = useRunEvents(['started', 'progress', 'roofline', 'point', 'skipped', 'result'], (type, data) => {
    if (type === 'started') {
      const started = data as Started
      asked.value = started.request
      machine.value = started.machine
      planned.value = started.points.flatMap((item) => (item.value === null ? [] : [item.value as Value]))
    } else if (type === 'progress') progress.value = data as Progress
    else if (type === 'point') points.value = [...points.value, data as Point]
    else if (type === 'skipped') skipped.value = [...skipped.value, data as Skipped]
    else if (type === 'result') take(data as Result)
  })

  function clear(): void {
    for (const value of [asked, progress, machine, result]) value.value = null
    points.value = []
    skipped.value = []
    planned.value = []
  }

  return {
    ...run,
    request: asked,
    progress,
    machine,
    points,
    skipped,
    result,
    axis: computed(() => asked.value?.sweep?.axis ?? null),
    mode: computed(() => asked.value?.mode ?? 'forward'),
    values: computed(() => (planned.value.length > 0 ? planned.value : inOrder(known.value))),
    active: computed(() => ['starting', 'queued', 'running', 'reconnecting'].includes(run.status.value)),
    async begin(body) {
      clear()
      await run.start('/api/benchmarks', body)
    },
    show(recorded) {
      run.leave()
      clear()
      take(recorded)
    },
    async open(id) {
      clear()
      await run.open(id)
    },
  }
}

/** Numbers ascend; words stay as they came. */
const inOrder = (values: readonly Value[]): Value[] =>
  values.every((value) => typeof value === 'number') ? [...values].sort((a, b) => a - b) : [...values]
