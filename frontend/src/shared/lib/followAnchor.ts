/** Brings an anchor into view and keeps it there while the sections above it still find their height. */
import { onMounted, onScopeDispose } from 'vue'

const STILL = 500
const PATIENCE = 20_000
/** What a reader does to go elsewhere. */
const TAKEN_OVER = ['wheel', 'touchmove', 'keydown', 'pointerdown'] as const

/** A section that is on its way, the one that is followed among them. */
const unfinished = (id: string): boolean =>
  document.querySelector('.lazy:empty') !== null || document.querySelector(`.lazy > span#${CSS.escape(id)}`) !== null

/** Follows until the layout has been still for half a second or the reader scrolls; returns what stops it. */
export function followAnchor(id: string): () => void {
  const begun = performance.now()
  let stillSince = begun
  let frame = 0
  const stop = (): void => {
    cancelAnimationFrame(frame)
    for (const event of TAKEN_OVER) window.removeEventListener(event, stop)
  }
  const look = (now: number): void => {
    const place = document.getElementById(id)
    const before = window.scrollY
    place?.scrollIntoView({ behavior: 'instant' })
    if (!place || Math.abs(window.scrollY - before) > 1 || unfinished(id)) stillSince = now
    if (now - stillSince > STILL || now - begun > PATIENCE) stop()
    else frame = requestAnimationFrame(look)
  }
  for (const event of TAKEN_OVER) window.addEventListener(event, stop, { passive: true })
  frame = requestAnimationFrame(look)
  return stop
}

/** Follows the address's anchor once there is something to see, and again whenever a link on the page changes it. */
export function useAnchor(): { follow: () => void } {
  let stop = (): void => undefined
  const follow = (): void => {
    stop()
    const id = window.location.hash.slice(1)
    if (id) stop = followAnchor(id)
  }
  onMounted(() => window.addEventListener('hashchange', follow))
  onScopeDispose(() => {
    stop()
    window.removeEventListener('hashchange', follow)
  })
  return { follow }
}
