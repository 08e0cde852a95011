/** A plugin that works on what a build has written. Those of a build run one after the other, in the order of its plugins. */
import { resolve } from 'node:path'
import type { Plugin, ResolvedConfig } from 'vite'

/** `work` gets the folder of the build, once every other plugin has written what it writes. */
export function afterBuild(name: string, work: (output: string) => void): Plugin {
  let config: ResolvedConfig
  let written = false
  return {
    name,
    apply: (options, { command }) => command === 'build' && !options.build?.ssr,
    configResolved(resolved) {
      config = resolved
    },
    writeBundle() {
      written = true
    },
    closeBundle: {
      order: 'post',
      sequential: true,
      handler() {
        // A build that failed has written nothing, and what it failed of is not to be hidden.
        if (written) work(resolve(config.root, config.build.outDir))
      },
    },
  }
}
