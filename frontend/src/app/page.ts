/** The whole page as a Vue application, for the browser and for rendering at build time. */
import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createApp, createSSRApp, type App as Application } from 'vue'
import { ApiError } from '@/shared/api/client'
import { i18n } from '@/shared/i18n'
import type { PageHistory, Router } from '@/shared/lib/router'
import '@/styles/tokens.css'
import '@/styles/main.css'
import '@/styles/table.css'
import '@/styles/chart.css'
import '@/styles/media.css'
import App from './App.vue'
import { createPageRouter } from './router'

/** `rendered`: the document already holds what the application renders first, so it only has to take it over. */
export function createPage(history: PageHistory, rendered: boolean): { app: Application; router: Router } {
  const queryClient = new QueryClient({
    defaultOptions: {
      queries: {
        // Answers are replaced, never changed: to follow each of their numbers would cost more than to draw them.
        shallow: true,
        // The server is usually this very machine: the browser's idea of being online says nothing about it.
        networkMode: 'always',
        refetchOnWindowFocus: false,
        retry: (count, error) => !(error instanceof ApiError) && count < 1,
        retryDelay: 400,
      },
    },
  })
  const router = createPageRouter(history)
  const app = (rendered ? createSSRApp : createApp)(App)
  app.use(i18n).use(router).use(VueQueryPlugin, { queryClient })
  return { app, router }
}
