/** Lets the curves of a finished run grow once more, step by step; who asked for less motion sees them whole at once. */
import { onScopeDispose, ref, type Ref } from 'vue'

export interface Replay {
  /** Show points up to this step; null: all of them. */
  upTo: Ref<number | null>
  play: (steps: readonly number[]) => void
  stop: () => void
  /** Held at one of the steps, for those who press instead of watching; the last one is everything. */
  hold: (steps: readonly number[], index: number) => void
}

const INTERVAL_MS = 350

export function useReplay(reduced: () => boolean): Replay {
  const upTo = ref<number | null>(null)
  let timer: ReturnType<typeof setInterval> | undefined

  function stop(): void {
    clearInterval(timer)
    upTo.value = null
  }
  onScopeDispose(stop)

  return {
    upTo,
    stop,
    hold(steps, index) {
      stop()
      upTo.value = index < steps.length - 1 ? (steps[index] ?? null) : null
    },
    play(steps) {
      stop()
      if (reduced() || steps.length === 0) return
      let index = 0
      upTo.value = steps[0]!
      timer = setInterval(() => {
        index += 1
        if (index < steps.length) upTo.value = steps[index]!
        else stop()
      }, INTERVAL_MS)
    },
  }
}
