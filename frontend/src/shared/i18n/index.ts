/** Two languages, each fetched in shares: what the first screen says comes with it, the rest with the first section below. */
import { computed, defineAsyncComponent, ref, type Component, type ComputedRef } from 'vue'
import { createI18n, useI18n } from 'vue-i18n'
import type { Locale } from '@/shared/lib/format'
import type { Group } from './groups'
import { spaced } from './spacing'

interface Messages {
  [key: string]: string | Messages
}
const SOURCES: Record<Locale, Record<Group, () => Promise<{ default: Messages }>>> = {
  'zh-CN': {
    first: () => import('virtual:messages/zh-CN/first'),
    home: () => import('virtual:messages/zh-CN/home'),
    rest: () => import('virtual:messages/zh-CN/rest'),
  },
  en: {
    first: () => import('virtual:messages/en/first'),
    home: () => import('virtual:messages/en/home'),
    rest: () => import('virtual:messages/en/rest'),
  },
}

export const i18n = createI18n({
  legacy: false,
  locale: 'zh-CN',
  fallbackLocale: false,
  messages: {} as Record<string, Messages>,
  postTranslation: (text) => (typeof text === 'string' && current() === 'zh-CN' ? spaced(text) : text),
})

const wanted = new Set<Group>(['first'])
const loaded = new Map<string, Promise<void>>()

function load(locale: Locale, group: Group): Promise<void> {
  const key = `${locale} ${group}`
  let found = loaded.get(key)
  if (!found) {
    found = SOURCES[locale][group]().then((share) => i18n.global.mergeLocaleMessage(locale, share.default))
    // A failed request is forgotten, so that the next one asks again.
    found.catch(() => loaded.delete(key))
    loaded.set(key, found)
  }
  return found
}

const current = (): Locale => (i18n.global.locale.value === 'en' ? 'en' : 'zh-CN')

/** A further share, from now on in whichever language is chosen. */
export async function loadMessages(group: Group): Promise<void> {
  wanted.add(group)
  await load(current(), group)
}

export async function setLocale(locale: Locale, remember = true): Promise<void> {
  await Promise.all([...wanted].map((group) => load(locale, group)))
  i18n.global.locale.value = locale
  if (typeof document === 'undefined') return
  document.documentElement.lang = locale
  if (!remember) return
  if (!__LORALENS_ALONE__)
    // The server reads the cookie, to send the page in this language from the start.
    document.cookie = `loralens.lang=${locale}; path=/; max-age=31536000; samesite=lax`
  try {
    localStorage.setItem('loralens.lang', locale)
  } catch {
    // Private windows may refuse; the language then lasts as long as the page.
  }
}

export function useLocale(): {
  t: ReturnType<typeof useI18n>['t']
  te: ReturnType<typeof useI18n>['te']
  locale: ComputedRef<Locale>
} {
  const { t, te, locale } = useI18n()
  return { t, te, locale: computed(() => (locale.value === 'en' ? 'en' : 'zh-CN')) }
}

/**
 * A component that is fetched when it is first shown, together with the messages that the first screen does without. Where
 * it cannot be fetched the page says so and offers to try again (`missing`, `fetchMissing`).
 */
export function lazily<T extends Component>(loader: () => Promise<{ default: T }>): T {
  return defineAsyncComponent({
    loader: async () => {
      for (;;) {
        try {
          const [module] = await Promise.all([loader(), loadMessages('rest')])
          missing.value = false
          return module.default
        } catch {
          missing.value = true
          await new Promise<void>((again) => waiting.add(again))
        }
      }
    },
  }) as unknown as T
}

const waiting = new Set<() => void>()
/** Whether a part of the page could not be fetched. */
export const missing = ref(false)

/** Tries again to fetch what could not be. */
export function fetchMissing(): void {
  const parts = [...waiting]
  waiting.clear()
  for (const again of parts) again()
}
