/** Renders the page to text while it is built; see vite/prerender.ts. */
import { VueQueryPlugin, QueryClient } from '@tanstack/vue-query'
import { createSSRApp, type App as Application } from 'vue'
import { renderToString } from 'vue/server-renderer'
import Plain from '@/pages/Plain.vue'
import { i18n, loadMessages, setLocale } from '@/shared/i18n'
import { createMemoryHistory, type Router } from '@/shared/lib/router'
import { title } from '@/shared/lib/title'
import type { Locale } from '@/shared/lib/format'
import { createPage } from './page'
import { createPageRouter } from './router'

export interface Rendered {
  html: string
  title: string
}

async function rendered(app: Application, router: Router, path: string): Promise<Rendered> {
  await router.push(path)
  await router.isReady()
  const html = await renderToString(app)
  return { html, title: title.value }
}

/** What the page's script would show first at this address. */
export async function renderPage(path: string, locale: Locale): Promise<Rendered> {
  await setLocale(locale, false)
  const { app, router } = createPage(createMemoryHistory(), true)
  return rendered(app, router, path)
}

/** The text, tables and code of Part 2 on one page without any script. */
export async function renderPlain(locale: Locale): Promise<Rendered> {
  await setLocale(locale, false)
  await Promise.all([loadMessages('home'), loadMessages('rest')])
  const app = createSSRApp(Plain)
  const router = createPageRouter(createMemoryHistory())
  // There is no server to ask: what only a server knows stays away.
  const queryClient = new QueryClient({ defaultOptions: { queries: { enabled: false } } })
  app.use(i18n).use(router).use(VueQueryPlugin, { queryClient })
  return rendered(app, router, '/part2')
}
