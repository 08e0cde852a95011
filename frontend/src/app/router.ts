import { loadMessages } from '@/shared/i18n'
import { createRouter, type PageHistory, type Router } from '@/shared/lib/router'
import { piece } from '@/shared/state/live'

export const createPageRouter = (history: PageHistory): Router =>
  createRouter(
    history,
    {
      '/': async () => (await Promise.all([import('@/pages/Home.vue'), loadMessages('home')]))[0].default,
      '/part2': async () => piece((await import('@/pages/Part2.vue')).default),
    },
    async () => (await import('@/pages/NotFound.vue')).default,
  )
