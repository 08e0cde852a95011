/** Names the page's own chunk in index.html, so that it is fetched beside the first script and not after it. */
import type { Plugin } from 'vite'

export function preloadPage(module: string): Plugin {
  return {
    name: 'preload-page',
    apply: 'build',
    transformIndexHtml: {
      order: 'post',
      handler(_html, { bundle }) {
        const chunks = Object.values(bundle ?? {}).filter((item) => item.type === 'chunk')
        const page = chunks.find((chunk) => chunk.facadeModuleId?.endsWith(module))
        const entry = chunks.find((chunk) => chunk.isEntry)
        if (!page) throw new Error(`no chunk for ${module}`)
        const known = new Set([entry?.fileName, ...(entry?.imports ?? [])])
        const scripts = [page.fileName, ...page.imports].filter((name) => !known.has(name))
        return scripts.map((name) => ({ tag: 'link', attrs: { rel: 'modulepreload', crossorigin: true, href: `/${name}` }, injectTo: 'head' as const }))
      },
    },
  }
}
