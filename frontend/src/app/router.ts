import { createRouter, createWebHistory } from 'vue-router'

const reduced = (): boolean => window.matchMedia('(prefers-reduced-motion: reduce)').matches

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', component: () => import('@/pages/Home.vue') },
    { path: '/part2', component: () => import('@/pages/Part2.vue') },
    { path: '/:rest(.*)*', component: () => import('@/pages/NotFound.vue') },
  ],
  scrollBehavior(to, from, saved) {
    if (saved) return saved
    if (to.path === from.path && to.hash === from.hash) return false
    if (to.hash) return new Promise((resolve) => requestAnimationFrame(() => resolve({ el: to.hash, behavior: reduced() ? 'auto' : 'smooth' })))
    return to.path === from.path ? false : { top: 0 }
  },
})
