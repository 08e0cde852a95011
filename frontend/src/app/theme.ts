/** Light, dark, or what the system says. index.html sets the first one before anything is painted. */
import { onMounted, ref, type Ref } from 'vue'

export type Theme = 'system' | 'light' | 'dark'

const theme = ref<Theme>('system')

export function useTheme(): { theme: Ref<Theme>; setTheme: (next: Theme) => void } {
  // Only now: what was rendered at build time knows no choice.
  onMounted(() => {
    const current = document.documentElement.dataset.theme
    if (current === 'light' || current === 'dark') theme.value = current
  })
  return {
    theme,
    setTheme(next) {
      theme.value = next
      if (next === 'system') delete document.documentElement.dataset.theme
      else document.documentElement.dataset.theme = next
      try {
        localStorage.setItem('loralens.theme', next)
      } catch {
        // Private windows may refuse; the theme then lasts as long as the page.
      }
    },
  }
}
