/** Printing: the answer on one sheet, or the whole page, whose sections are rendered and answered first. */
import { useQueryClient } from '@tanstack/vue-query'
import { onMounted, onScopeDispose, ref, type Ref } from 'vue'

/** Tells every lazy section to render. */
export const SHOW_ALL = 'loralens:show-all'

/** Asks for the answer's sheet alone. */
export const PRINT_SHEET = 'loralens:print-sheet'

/** `printing` is true from the first preparation on; `print` waits for sections and answers, then opens the dialog. */
export function usePrint(): { printing: Ref<boolean>; print: () => Promise<void> } {
  const client = useQueryClient()
  const printing = ref(false)

  // Pictures and code are drawn in the screen's colours: paper gets the light ones.
  let theme: string | undefined
  const lighten = (): void => {
    const { dataset } = document.documentElement
    theme ??= dataset.theme ?? ''
    dataset.theme = 'light'
  }
  const restore = (): void => {
    const { dataset } = document.documentElement
    if (theme) dataset.theme = theme
    else if (theme === '') delete dataset.theme
    theme = undefined
    delete dataset.print
  }

  async function prepare(what: 'prepareSheet' | 'preparePage'): Promise<void> {
    before()
    // Without the server this part of the page may be missing: paper then shows what is there.
    await import('./preparePrint').then((parts) => parts[what](client)).catch(() => {})
    window.print()
  }
  const print = (): Promise<void> => prepare('preparePage')
  const printSheet = (): Promise<void> => prepare('prepareSheet')

  const before = (): void => {
    printing.value = true
    lighten()
  }
  const keyed = (event: KeyboardEvent): void => {
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === 'p') {
      event.preventDefault()
      void print()
    }
  }
  onMounted(() => {
    window.addEventListener('beforeprint', before)
    window.addEventListener('afterprint', restore)
    window.addEventListener('keydown', keyed)
    window.addEventListener(PRINT_SHEET, printSheet)
  })
  onScopeDispose(() => {
    window.removeEventListener('beforeprint', before)
    window.removeEventListener('afterprint', restore)
    window.removeEventListener('keydown', keyed)
    window.removeEventListener(PRINT_SHEET, printSheet)
  })
  return { printing, print }
}

/** Turns true when the page is about to be printed: what is shown or asked for on demand is then shown anyway. */
export function useForPrint(): Ref<boolean> {
  const wanted = ref(false)
  const want = (): void => {
    wanted.value = true
  }
  const events = ['beforeprint', SHOW_ALL]
  onMounted(() => events.forEach((event) => window.addEventListener(event, want)))
  onScopeDispose(() => events.forEach((event) => window.removeEventListener(event, want)))
  return wanted
}
