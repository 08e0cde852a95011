/** Two languages: zh-CN is in the first bundle, en is fetched when it is wanted. */
import { computed, type ComputedRef } from 'vue'
import { createI18n, useI18n } from 'vue-i18n'
import zh from '@/locales/zh-CN.json'
import type { Locale } from '@/shared/lib/format'

export const i18n = createI18n({ legacy: false, locale: 'zh-CN', fallbackLocale: 'zh-CN', messages: { 'zh-CN': zh } as Record<string, typeof zh> })

type Loaders = Record<Locale, () => Promise<{ default: object }>>
/** Words of sections that are loaded late, and the languages in which they are here already. */
const sections = new Map<Loaders, Set<Locale>>()

async function loadSection(loaders: Loaders, locale: Locale): Promise<void> {
  const here = sections.get(loaders)!
  if (here.has(locale)) return
  const words = (await loaders[locale]()).default
  i18n.global.mergeLocaleMessage(locale, words)
  here.add(locale)
}

/** Fetches a section's words in the current language, and from then on in every language that is switched to. */
export async function addWords(loaders: Loaders): Promise<void> {
  if (!sections.has(loaders)) sections.set(loaders, new Set())
  await loadSection(loaders, i18n.global.locale.value as Locale)
}

export async function setLocale(locale: Locale, remember = true): Promise<void> {
  if (locale === 'en' && !i18n.global.availableLocales.includes('en')) {
    i18n.global.setLocaleMessage('en', (await import('@/locales/en.json')).default as typeof zh)
  }
  await Promise.all([...sections.keys()].map((loaders) => loadSection(loaders, locale)))
  i18n.global.locale.value = locale
  document.documentElement.lang = locale
  if (remember) {
    try {
      localStorage.setItem('loralens.lang', locale)
    } catch {
      // Private windows may refuse; the language then lasts as long as the page.
    }
  }
}

export function useLocale(): { t: ReturnType<typeof useI18n>['t']; te: ReturnType<typeof useI18n>['te']; locale: ComputedRef<Locale> } {
  const { t, te, locale } = useI18n()
  return { t, te, locale: computed(() => (locale.value === 'en' ? 'en' : 'zh-CN')) }
}
