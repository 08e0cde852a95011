import { QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createApp } from 'vue'
import { ApiError } from '@/shared/api/client'
import { i18n, setLocale } from '@/shared/i18n'
import '@/styles/tokens.css'
import '@/styles/main.css'
import App from './App.vue'
import { router } from './router'

// After a new version was deployed, an open page names chunks that are gone: load the new page, once.
window.addEventListener('vite:preloadError', (event) => {
  if (sessionStorage.getItem('loralens.reloaded')) return
  sessionStorage.setItem('loralens.reloaded', '1')
  event.preventDefault()
  window.location.reload()
})

const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // The server is usually this very machine: the browser's idea of being online says nothing about it.
      networkMode: 'always',
      refetchOnWindowFocus: false,
      retry: (count, error) => !(error instanceof ApiError) && count < 1,
      retryDelay: 400,
    },
  },
})

const app = createApp(App)
app.use(i18n).use(router).use(VueQueryPlugin, { queryClient })
const ready = document.documentElement.lang === 'en' ? setLocale('en', false) : Promise.resolve()
void Promise.all([ready, router.isReady()]).then(() => app.mount('#app'))
