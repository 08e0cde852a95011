/** Two languages: zh-CN is in the first bundle, en is fetched when it is wanted. */
import { computed, type ComputedRef } from 'vue'
import { createI18n, useI18n } from 'vue-i18n'
import zh from '@/locales/zh-CN.json'
import type { Locale } from '@/shared/lib/format'

export const i18n = createI18n({ legacy: false, locale: 'zh-CN', fallbackLocale: 'zh-CN', messages: { 'zh-CN': zh } as Record<string, typeof zh> })

export async function setLocale(locale: Locale, remember = true): Promise<void> {
  if (locale === 'en' && !i18n.global.availableLocales.includes('en')) {
    i18n.global.setLocaleMessage('en', (await import('@/locales/en.json')).default as typeof zh)
  }
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
