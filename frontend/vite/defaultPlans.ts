/**
 * The default model's plans alone, out of the file with all built-in ones: `import answer from 'virtual:default-plans'`.
 *
 * The first screen is rendered from them at build time and again when its script starts; the others are needed only
 * when the server is away. What the first screen does not show stays out of it: the timeline, and the recipe in full.
 */
import { readFileSync } from 'node:fs'
import type { Plugin } from 'vite'

const NAME = 'virtual:default-plans'

export function defaultPlans(file: string): Plugin {
  return {
    name: 'default-plans',
    resolveId: (id) => (id === NAME ? `\0${NAME}` : undefined),
    load(id) {
      if (id !== `\0${NAME}`) return undefined
      this.addWatchFile(file)
      const [first] = JSON.parse(readFileSync(file, 'utf8')) as { body: unknown; plans: Record<string, unknown>[] }[]
      const plans = first!.plans.map((plan) => ({
        ...plan,
        moments: (plan.moments as object[]).map((moment) => ({ ...moment, label: '' })),
        timeline: [],
        recipe: undefined,
        assumptions: undefined,
        host_bytes: undefined,
        regime: '',
      }))
      // A string to parse starts faster than an object literal of that size.
      return `export default JSON.parse(${JSON.stringify(JSON.stringify({ ...first, plans }))})`
    },
  }
}
