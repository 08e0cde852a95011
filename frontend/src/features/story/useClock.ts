/** The moment that is shown, from 0 to 1: it follows what it is sent to, or runs by itself. */
import { onScopeDispose, ref, type ComputedRef, type Ref } from 'vue'

/** Of the whole step, when it runs by itself. */
const SECONDS = 24
/** Milliseconds in which two thirds of the way to a new moment are gone. */
const EASE = 90

export interface Clock {
  time: Ref<number>
  playing: Ref<boolean>
  /** On the way there from now on; at once where no motion is wanted. */
  go: (to: number) => void
  /** There at once, and nothing runs. */
  set: (to: number) => void
  play: () => void
}

export function useClock(reduced: ComputedRef<boolean>): Clock {
  const time = ref(0)
  const playing = ref(false)
  let target = 0
  let frame = 0
  let before = 0

  function step(now: number): void {
    const passed = Math.min(100, now - before)
    before = now
    if (playing.value) {
      target = time.value = Math.min(1, time.value + passed / (1000 * SECONDS))
      if (target >= 1) playing.value = false
    } else {
      const left = target - time.value
      time.value = Math.abs(left) < 2e-4 ? target : time.value + left * (1 - Math.exp(-passed / EASE))
    }
    frame = playing.value || time.value !== target ? requestAnimationFrame(step) : 0
  }
  function go(to: number): void {
    target = to
    if (reduced.value) time.value = to
    else if (frame === 0) {
      before = performance.now()
      frame = requestAnimationFrame(step)
    }
  }
  function set(to: number): void {
    playing.value = false
    target = time.value = to
  }
  function play(): void {
    playing.value = !playing.value
    if (playing.value && time.value >= 1) time.value = 0
    go(time.value)
  }
  onScopeDispose(() => cancelAnimationFrame(frame))
  return { time, playing, go, set, play }
}
