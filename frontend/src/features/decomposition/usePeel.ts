/**
 * The update is peeled into its factors. It lasts a second, can be stopped and can be moved by hand;
 * readers who want no motion press through its stages instead.
 */
import { computed, onScopeDispose, ref, type ComputedRef, type Ref, type WritableComputedRef } from 'vue'
import { useLocale } from '@/shared/i18n'
import { formatInteger } from '@/shared/lib/format'

const MILLISECONDS = 1100
const STAGES = [0, 0.35, 0.7, 1] as const

interface Peel {
  /** How far it is peeled, from 0 (the update whole) to 1 (two factors). */
  peel: Ref<number>
  /** The frame that comes next; 0 while nothing moves. */
  playing: Ref<number>
  /** The nearest of the stages, to be pressed through. */
  stage: WritableComputedRef<number>
  stages: ComputedRef<string[]>
  play: () => void
  stop: () => void
  scrub: (percent: number) => void
}

export function usePeel(rank: () => number): Peel {
  const { t, locale } = useLocale()
  const peel = ref(0)
  const playing = ref(0)
  const stages = computed(() =>
    STAGES.map((_, index) => t(`matrix.stage${index}`, { r: formatInteger(rank(), locale.value) }, rank())),
  )
  const away = (at: number): number => Math.abs(at - peel.value)
  const stage = computed({
    get: () => STAGES.reduce<number>((best, at, index) => (away(at) < away(STAGES[best]!) ? index : best), 0),
    set: (index) => (peel.value = STAGES[index]!),
  })

  function stop(): void {
    cancelAnimationFrame(playing.value)
    playing.value = 0
  }
  function play(): void {
    const target = peel.value > 0.5 ? 0 : 1
    const start = performance.now()
    const from = peel.value
    const step = (now: number): void => {
      const part = Math.min(1, (now - start) / MILLISECONDS)
      const eased = part < 0.5 ? 2 * part * part : 1 - (-2 * part + 2) ** 2 / 2
      peel.value = from + (target - from) * eased
      playing.value = part < 1 ? requestAnimationFrame(step) : 0
    }
    playing.value = requestAnimationFrame(step)
  }
  function scrub(percent: number): void {
    stop()
    peel.value = percent / 100
  }
  onScopeDispose(stop)
  return { peel, playing, stage, stages, play, stop, scrub }
}
