import { setLocale } from '@/shared/i18n'
import { createWebHistory } from '@/shared/lib/router'
import { comeToLife, live, pause } from '@/shared/state/live'
import { createPage } from './page'

/** The page's own work comes first. */
const IDLE_MS = 3000

/** The path below which the page lies: its server's root, or wherever a page that stands alone was put. */
function root(): string {
  const folder = document.documentElement.dataset.root
  return folder === undefined ? '/' : new URL(folder, window.location.href).pathname
}

/**
 * Brings the document to life.
 *
 * One that was rendered for this very address at build time is taken over as it stands. Any other content, rendered in
 * the other language or without the numbers asked for, is replaced in one go.
 */
export async function start(): Promise<void> {
  const { dataset, lang } = document.documentElement
  const base = root()
  const same = dataset.rendered === 'default' && dataset.stale === undefined && window.location.hash === ''
  live.value = !same
  const { app, router } = createPage(createWebHistory(base), same)
  await pause()
  await Promise.all([setLocale(lang === 'en' ? 'en' : 'zh-CN', false), router.isReady()])
  await pause()
  app.mount('#app')
  delete dataset.stale
  await comeToLife()
  delete dataset.rendered
  const embedded = new URLSearchParams(window.location.search).has('embed')
  if (import.meta.env.PROD && !embedded) setTimeout(() => void import('./later').then((it) => it.later(base)), IDLE_MS)
}
