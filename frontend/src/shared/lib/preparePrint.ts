/** What paper needs before the dialog opens: all that is to be printed is there and has its answer. */
import type { QueryClient } from '@tanstack/vue-query'
import { nextTick } from 'vue'
import { SHOW_ALL } from './print'

const PATIENCE = 8000
const frame = (): Promise<unknown> => new Promise((next) => requestAnimationFrame(next))

/** The style sheet leaves out everything else. */
export async function prepareSheet(client: QueryClient): Promise<void> {
  document.documentElement.dataset.print = 'sheet'
  const until = performance.now() + PATIENCE
  do await frame()
  while ((!document.querySelector('.answer-sheet') || client.isFetching() > 0) && performance.now() < until)
}

export async function preparePage(client: QueryClient): Promise<void> {
  window.dispatchEvent(new Event(SHOW_ALL))
  const until = performance.now() + PATIENCE
  let calm = 0
  // Sections inside sections come to light one after the other; three calm frames in a row are enough.
  while (calm < 3 && performance.now() < until) {
    await frame()
    await nextTick()
    window.dispatchEvent(new Event(SHOW_ALL))
    calm =
      document.querySelector('.lazy > span[id]') || client.isFetching() > 0 || document.querySelector('.lazy:empty')
        ? 0
        : calm + 1
  }
}
