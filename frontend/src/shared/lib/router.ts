/**
 * Which page is shown, and the query and hash of its address. What a page of three addresses needs of a router, and no more:
 * a page is fetched before its address is current, Back and Forward return to where the reader was on it.
 */
import {
  h,
  inject,
  nextTick,
  reactive,
  shallowRef,
  type App,
  type Component,
  type FunctionalComponent,
  type InjectionKey,
} from 'vue'

export type Query = Record<string, string>
export interface Place {
  path: string
  query: Query
  hash: string
}
export type Target = string | (Pick<Place, 'path'> & Partial<Place>)

/** Where addresses come from: the browser's bar, or a variable while the page is rendered at build time. */
export interface PageHistory {
  /** From the root of the site: path, query and hash. */
  read: () => string
  write: (address: string, how: 'push' | 'replace') => void
  /** An address as a link's `href`. */
  href: (address: string) => string
  /** Called when the reader goes to another entry; returns nothing, for the page lives as long as the document. */
  listen: (went: () => void) => void
  /** The number of the entry, by which its scroll position is remembered; null for one that is not ours. */
  entry: () => number | null
}

/** `base`: the folder of the site, with a slash at both ends. */
export function createWebHistory(base = '/'): PageHistory {
  const { history, location } = window
  const href = (address: string): string => base + address.slice(1)
  const entry = (): number | null => (history.state as { entry?: number } | null)?.entry ?? null
  /** Where the reader was last: an entry that an anchor of the page made comes after it. */
  let last = entry() ?? -1
  return {
    href,
    entry,
    read: () => `/${location.pathname.slice(base.length)}${location.search}${location.hash}`,
    write(address, how) {
      const now = entry()
      last = now === null || how === 'push' ? last + 1 : now
      history[`${how}State`]({ entry: last }, '', href(address))
    },
    listen: (went) =>
      window.addEventListener('popstate', () => {
        went()
        last = entry() ?? last
      }),
  }
}

export function createMemoryHistory(): PageHistory {
  let now = '/'
  return {
    read: () => now,
    write: (address) => (now = address),
    href: (address) => address,
    listen: () => undefined,
    entry: () => null,
  }
}

/** Like the browser's own bar shows it: what need not be escaped is not, so that a link can be read. */
const escape = (text: string): string => encodeURI(text).replaceAll(/[#&+]/g, encodeURIComponent).replaceAll('%20', '+')

export function addressOf(target: Target): string {
  if (typeof target === 'string') return target
  const { path, query = {}, hash = '' } = target
  const pairs = Object.entries(query).map(([key, value]) => `${escape(key)}=${escape(value)}`)
  return `${path}${pairs.length ? `?${pairs.join('&')}` : ''}${hash}`
}

export function placeOf(address: string): Place {
  const { pathname, searchParams, hash } = new URL(address, 'http://page')
  // A host of files alone ends the address of a folder with a slash.
  return {
    path: pathname.replace(/(?<=.)\/$/, ''),
    query: Object.fromEntries(searchParams),
    hash,
  }
}

export interface Router {
  route: Readonly<Place>
  push: (target: Target) => Promise<void>
  replace: (target: Target) => Promise<void>
  /** Once the first page is there. */
  isReady: () => Promise<void>
  href: (target: Target) => string
  page: () => Component | undefined
  install: (app: App) => void
}
const KEY: InjectionKey<Router> = Symbol('router')

/** `pages`: by path; any other path shows `otherwise`. */
export function createRouter(
  history: PageHistory,
  pages: Readonly<Record<string, () => Promise<Component>>>,
  otherwise: () => Promise<Component>,
): Router {
  const route = reactive<Place>(placeOf(history.read()))
  const page = shallowRef<Component>()
  const scrolled = new Map<number, number>()
  let shown: string | undefined
  let turn = 0
  /** The entry that the reader is at. */
  let at: number | null = null

  /** Shows the page of an address; what was asked for meanwhile wins. */
  async function show(address: string, before: () => void = () => undefined): Promise<boolean> {
    const mine = ++turn
    const place = placeOf(address)
    const other = place.path !== shown
    const component = other ? await (pages[place.path] ?? otherwise)() : page.value
    if (mine !== turn) return false
    before()
    Object.assign(route, place)
    shown = place.path
    page.value = component
    await nextTick()
    return other
  }
  async function go(target: Target, how: 'push' | 'replace'): Promise<void> {
    const address = addressOf(target)
    const other = await show(address, () => {
      if (how === 'push' && at !== null) scrolled.set(at, window.scrollY)
      history.write(address, how)
      at = history.entry()
    })
    // A page whose address names a place in it goes there by itself.
    if (other && !route.hash && typeof window !== 'undefined') window.scrollTo({ top: 0 })
  }

  history.listen(() => {
    if (at !== null) scrolled.set(at, window.scrollY)
    const entry = history.entry()
    // An anchor of the page makes an entry of its own, and the browser goes there.
    if (entry === null) history.write(history.read(), 'replace')
    at = history.entry()
    void show(history.read()).then((other) => {
      const top = entry === null ? undefined : scrolled.get(entry)
      if (top !== undefined && other) window.scrollTo({ top })
    })
  })
  const first = show(history.read(), () => {
    if (history.entry() === null) history.write(history.read(), 'replace')
    at = history.entry()
  })
  const router: Router = {
    route,
    push: (target) => go(target, 'push'),
    replace: (target) => go(target, 'replace'),
    isReady: () => first.then(() => undefined),
    href: (target) => history.href(addressOf(target)),
    page: () => page.value,
    install: (app) => void app.provide(KEY, router),
  }
  return router
}

export function useRouter(): Router {
  const router = inject(KEY)
  if (!router) throw new Error('useRouter needs the router to be installed')
  return router
}
export const useRoute = (): Readonly<Place> => useRouter().route

export const RouterView: FunctionalComponent = () => {
  const page = useRouter().page()
  return page ? h(page) : null
}

export const RouterLink: FunctionalComponent<{ to: Target }> = ({ to }, { slots }) => {
  const router = useRouter()
  const follow = (event: MouseEvent): void => {
    // With a modifier the browser opens a tab of its own.
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
      return
    event.preventDefault()
    void router.push(to)
  }
  const current = placeOf(addressOf(to)).path === router.route.path
  return h(
    'a',
    { href: router.href(to), 'aria-current': current ? 'page' : undefined, onClick: follow },
    slots.default?.(),
  )
}
RouterLink.props = ['to']
