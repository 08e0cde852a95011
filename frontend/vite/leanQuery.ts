/**
 * Lets the bundler leave out endless lists, of which the page has none.
 *
 * query-core's `Query` imports what fetches the pages of such a list, whether or not one is asked for; measured, 0.5 kB of
 * gzip on the first screen.
 */
import type { Plugin } from 'vite'

const IMPORT = 'import { infiniteQueryBehavior } from "./infiniteQueryBehavior.js";'

export function leanQuery(): Plugin {
  return {
    name: 'lean-query',
    apply: 'build',
    transform: {
      filter: { id: /query-core\/build\/modern\/query\.js$/ },
      handler(code, id) {
        if (!code.includes(IMPORT))
          throw new Error(`${id} imports endless lists in another way: see whether this plugin is still needed`)
        return { code: code.replace(IMPORT, 'const infiniteQueryBehavior = () => undefined;'), map: null }
      },
    },
  }
}
