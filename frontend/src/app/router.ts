import { createRouter, type Router, type RouterHistory } from 'vue-router'
import { loadMessages } from '@/shared/i18n'
import { piece } from '@/shared/state/live'

const reduced = (): boolean => window.matchMedia('(prefers-reduced-motion: reduce)').matches

export const createPageRouter = (history: RouterHistory): Router =>
  createRouter({
    history,
    routes: [
      { path: '/', component: async () => (await Promise.all([import('@/pages/Home.vue'), loadMessages('home')]))[0] },
      { path: '/part2', component: async () => piece((await import('@/pages/Part2.vue')).default) },
      { path: '/:rest(.*)*', component: () => import('@/pages/NotFound.vue') },
    ],
    scrollBehavior(to, from, saved) {
      if (saved) return saved
      if (to.path === from.path && to.hash === from.hash) return false
      if (to.hash)
        return new Promise((resolve) =>
          requestAnimationFrame(() => resolve({ el: to.hash, behavior: reduced() ? 'auto' : 'smooth' })),
        )
      return to.path === from.path ? false : { top: 0 }
    },
  })
