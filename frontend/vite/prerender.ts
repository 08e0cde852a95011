/**
 * Renders the home page and Part 2 to documents while building, in both languages, so that a reader sees text and
 * numbers before any script has run. The server chooses the document (backend/loralens/api/page.py).
 *
 *   index.html                 nothing rendered: any other address
 *   pages/home.LANG.html       /
 *   pages/part2.LANG.html      /part2 at its defaults
 *   pages/asked.LANG.html      /part2 with settings in the address: the text, and numbers that wait for their answer
 *   pages/plain.LANG.html      Part 2 without a script; the documents lead there by <noscript>
 *
 * A page that stands alone has no one to choose: index.html is the home page, part2/index.html Part 2, both in Chinese, and
 * the script replaces what is in the other language.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, type Plugin, type ResolvedConfig, type Rolldown } from 'vite'
import { forAnyPlace, withPolicy } from './alone.ts'

type Chunk = Rolldown.OutputChunk
interface Rendered {
  html: string
  title: string
}
interface Renderer {
  renderPage: (path: string, locale: string) => Promise<Rendered>
  renderPlain: (locale: string) => Promise<Rendered>
  /** Every style sheet of the page as one text. */
  styles: string
}

const LOCALES = ['zh-CN', 'en'] as const
const FIRST_LOCALE = LOCALES[0]
const START = 'src/app/start.ts'
const PART2 = 'src/pages/Part2.vue'
const HOME = 'src/pages/Home.vue'
/** A model id that no catalogue has: rendered with it, the page has no numbers yet. */
const NOBODY = '-'

/** The chunks that run when a document starts, and the style sheets that belong to them. */
class Files {
  constructor(private readonly chunks: Chunk[]) {}

  of(modules: string[]): { scripts: string[]; styles: string[] } {
    const entry = this.chunks.find((chunk) => chunk.isEntry)
    const scripts = new Set<string>()
    const styles = new Set<string>()
    const add = (chunk: Chunk | undefined): void => {
      if (!chunk || scripts.has(chunk.fileName)) return
      scripts.add(chunk.fileName)
      for (const name of chunk.imports) add(this.chunks.find((other) => other.fileName === name))
      for (const name of chunk.viteMetadata?.importedCss ?? []) styles.add(name)
    }
    for (const module of modules) {
      const found = this.chunks.find((chunk) => chunk.facadeModuleId?.endsWith(module))
      if (!found) throw new Error(`no chunk for ${module}`)
      add(found)
    }
    // The document runs the entry by itself.
    return { scripts: [...scripts].filter((name) => name !== entry?.fileName), styles: [...styles] }
  }
}

const messagesOf = (locale: string, groups: string[]): string[] =>
  groups.map((group) => `${locale}.share-${group}.json`)
const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Fills the built index.html; every mark it relies on must be there. */
class Shell {
  constructor(private readonly text: string) {}

  private static put(text: string, mark: string | RegExp, next: string): string {
    if (text.search(mark) < 0) throw new Error(`index.html holds no ${String(mark)}`)
    return text.replace(mark, () => next)
  }

  with(part: { locale: string; rendered?: string; title?: string; head: string; body: string }): string {
    let text = Shell.put(
      this.text,
      '<html lang="zh-CN">',
      `<html lang="${part.locale}"${part.rendered ? ` data-rendered="${part.rendered}"` : ''}>`,
    )
    if (part.title) text = Shell.put(text, /<title>[^<]*<\/title>/, `<title>${escape(part.title)}</title>`)
    text = Shell.put(text, '</head>', `${part.head}\n  </head>`)
    return Shell.put(text, '<div id="app"></div>', part.body)
  }

  withoutScripts(): Shell {
    return new Shell(
      this.text
        .replace(/<script type="module"[^>]*><\/script>\s*/, '')
        .replace(/<link rel="modulepreload"[^>]*>\s*/g, ''),
    )
  }
}

/** `alone`: for a page without a server. */
export function prerender(alone: boolean): Plugin {
  let config: ResolvedConfig
  return {
    name: 'prerender',
    apply: (options, { command }) => command === 'build' && !options.build?.ssr,
    configResolved(resolved) {
      config = resolved
    },
    async writeBundle(_options, bundle) {
      const output = resolve(config.root, config.build.outDir)
      const files = new Files(Object.values(bundle).filter((item): item is Chunk => item.type === 'chunk'))
      const sheet = (name: string): string => readFileSync(join(output, name), 'utf8').trim()
      const renderer = await loadRenderer(config)
      const shell = new Shell(readFileSync(join(output, 'index.html'), 'utf8'))

      const preloads = (modules: string[]): string =>
        files
          .of(modules)
          .scripts.map((name) => `    <link rel="modulepreload" crossorigin href="/${name}">`)
          .join('\n')
      // The names of the sheets whose text is in the document: main.ts keeps them from being fetched again.
      const inlined = (styles: string[], extra = ''): string =>
        `    <style data-sheets="${styles.map((name) => `/${name}`).join(' ')}">${styles.map(sheet).join('')}${extra}</style>`
      const plainOf = (locale: string): string =>
        `    <noscript><meta http-equiv="refresh" content="0; url=/pages/plain.${locale}.html"></noscript>`
      const app = (html: string): string => `<div id="app">${html}</div>`
      const save = (name: string, text: string): void => {
        const folder = name.includes('/') ? '../' : './'
        writeFileSync(join(output, name), alone ? withPolicy(forAnyPlace(text, folder)) : text)
      }

      for (const folder of ['pages', 'part2']) mkdirSync(join(output, folder), { recursive: true })
      for (const locale of LOCALES) {
        const page = await renderer.renderPage('/part2', locale)
        const part2 = [START, PART2, ...messagesOf(locale, ['first'])]
        const head = (modules: string[], extra = ''): string =>
          [plainOf(locale), inlined(files.of(modules).styles, extra), preloads(modules)].join('\n')
        const plain = await renderer.renderPlain(locale)
        save(
          `pages/plain.${locale}.html`,
          shell
            .withoutScripts()
            .with({ locale, title: plain.title, head: `    <style>${renderer.styles}</style>`, body: plain.html }),
        )
        if (alone && locale !== FIRST_LOCALE) continue
        save(
          alone ? 'part2/index.html' : `pages/part2.${locale}.html`,
          shell.with({ locale, rendered: 'default', title: page.title, head: head(part2), body: app(page.html) }),
        )
        const home = await renderer.renderPage('/', locale)
        const homeModules = [START, HOME, ...messagesOf(locale, ['first', 'home'])]
        save(
          alone ? 'index.html' : `pages/home.${locale}.html`,
          shell.with({ locale, rendered: 'default', title: home.title, head: head(homeModules), body: app(home.html) }),
        )
        if (alone) continue
        const asked = await renderer.renderPage(`/part2?m=${NOBODY}`, locale)
        save(
          `pages/asked.${locale}.html`,
          shell.with({
            locale,
            rendered: 'asked',
            title: page.title,
            head: head(part2, '[data-rendered=asked] .setup{visibility:hidden}'),
            body: app(asked.html),
          }),
        )
      }
      if (alone) return
      save(
        'index.html',
        shell.with({
          locale: FIRST_LOCALE,
          head: [
            plainOf(FIRST_LOCALE),
            ...files.of([START, PART2]).styles.map((name) => `    <link rel="stylesheet" crossorigin href="/${name}">`),
            preloads([START, PART2]),
          ].join('\n'),
          body: '<div id="app"></div>',
        }),
      )
    },
  }
}

/** A build of the same sources for this Node, with the same production settings: scoped styles then carry the same names. */
async function loadRenderer(config: ResolvedConfig): Promise<Renderer> {
  const folder = join(config.root, 'node_modules/.cache/prerender')
  rmSync(folder, { recursive: true, force: true })
  await build({
    root: config.root,
    configFile: config.configFile,
    mode: config.mode,
    logLevel: 'warn',
    ssr: { noExternal: true, external: ['temml'] },
    build: {
      ssr: join(config.root, 'src/app/prerender.ts'),
      ssrEmitAssets: true,
      cssCodeSplit: false,
      copyPublicDir: false,
      outDir: folder,
      emptyOutDir: true,
      rolldownOptions: { output: { entryFileNames: 'prerender.mjs' } },
    },
  })
  const module = (await import(pathToFileURL(join(folder, 'prerender.mjs')).href)) as Omit<Renderer, 'styles'>
  const sheets = readdirSync(join(folder, 'assets')).filter((name) => name.endsWith('.css'))
  return { ...module, styles: sheets.map((name) => readFileSync(join(folder, 'assets', name), 'utf8').trim()).join('') }
}
