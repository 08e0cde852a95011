import { computed, onMounted, onScopeDispose, ref, type ComputedRef, type Ref } from 'vue'
import { live } from '@/shared/state/live'

/** Whether a media query holds, kept up to date; undefined while nobody knows the screen (in what was rendered at build time). */
export function useMedia(query: string): Ref<boolean | undefined> {
  const matches = ref<boolean>()
  const watchScreen = (): void => {
    const list = window.matchMedia(query)
    const changed = (): void => {
      matches.value = list.matches
    }
    changed()
    list.addEventListener('change', changed)
    onScopeDispose(() => list.removeEventListener('change', changed))
  }
  if (live.value) watchScreen()
  else onMounted(watchScreen)
  return matches
}

export function useReducedMotion(): ComputedRef<boolean> {
  const reduced = useMedia('(prefers-reduced-motion: reduce)')
  return computed(() => reduced.value === true)
}
