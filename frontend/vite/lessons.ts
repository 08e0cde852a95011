/**
 * The lesson scripts as highlighted HTML, made at build time: no highlighter reaches the browser.
 *
 * `import lessons from 'virtual:lessons'` gives every `code/part2/NN_name.py` that exists when the page is built.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createHighlighter } from 'shiki'
import type { Plugin } from 'vite'

const NAME = 'virtual:lessons'
const LESSON = /^\d\d_\w+\.py$/

export function lessons(folder: string): Plugin {
  const directory = resolve(folder)
  const files = (): string[] => {
    try {
      return readdirSync(directory)
        .filter((name) => LESSON.test(name))
        .sort()
    } catch {
      return []
    }
  }
  return {
    name: 'lessons',
    resolveId: (id) => (id === NAME ? `\0${NAME}` : undefined),
    async load(id) {
      if (id !== `\0${NAME}`) return undefined
      const found = files()
      if (found.length === 0) return 'export default []'
      const highlighter = await createHighlighter({
        themes: ['github-light-high-contrast', 'github-dark-high-contrast'],
        langs: ['python'],
      })
      const rows = found.map((name) => {
        const file = join(directory, name)
        this.addWatchFile(file)
        const text = readFileSync(file, 'utf8')
        const html = highlighter.codeToHtml(text, {
          lang: 'python',
          themes: { light: 'github-light-high-contrast', dark: 'github-dark-high-contrast' },
          defaultColor: false,
        })
        return { path: `code/part2/${name}`, text, html }
      })
      highlighter.dispose()
      return `export default ${JSON.stringify(rows)}`
    },
  }
}
