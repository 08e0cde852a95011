/**
 * How the page comes to life: what was rendered at build time is taken over piece by piece, and only then is the server
 * asked and the page allowed to change. Until then the first rendering must be the one already there.
 */
import { defineAsyncComponent, ref, type Component } from 'vue'

/** False while the page is rendered at build time, and until its script has taken over all of what was rendered. */
export const live = ref(false)

const waiting: (() => void)[] = []

/** Lets the browser paint, and answer the reader, between two pieces of work. */
export const pause = (): Promise<void> => new Promise((done) => setTimeout(done))

/** A component that is taken over in a task of its own: one long task for the whole page would hold up the reader's first touch. */
export function piece<T extends Component>(component: T): T {
  return defineAsyncComponent({
    loader: () => Promise.resolve(component),
    hydrate: (takeOver) => {
      waiting.push(takeOver)
    },
  }) as unknown as T
}

/** Takes over the pieces, the last first: what changes the others, the setup bar, stands above them. */
export async function comeToLife(): Promise<void> {
  await pause()
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    next()
    await pause()
  }
  live.value = true
}
