/** What leaves the page says what it is of: the settings in words, version and date, and a link that restores them all. */
import { computed, type ComputedRef } from 'vue'
import { useLocale } from '@/shared/i18n'
import { sentences } from '@/shared/i18n/sentences'
import { useSettingRows } from '@/shared/recipe/useSettingRows'
import { formatQuery } from '@/shared/url/part2Query'
import { useAnswers } from './answers'
import { useSettings } from './settings'

export interface Share {
  /** The address of what is shown, language included; null where it would lose something. */
  link: ComputedRef<string | null>
  /** Whether nobody else can open the link: it names this very machine. */
  local: ComputedRef<boolean>
  /** The settings in one line. */
  summary: ComputedRef<string>
  /** Name, version and date. */
  source: () => string
}

export const version = __LORALENS_VERSION__
export const today = (): string => new Date().toISOString().slice(0, 10)

export function useShare(): Share {
  const { locale } = useLocale()
  const { settings } = useSettings()
  const answers = useAnswers()
  const rows = useSettingRows({ short: true })
  const link = computed(() => {
    if (!answers.linkable.value) return null
    const query = new URLSearchParams({ ...formatQuery(settings), lang: locale.value })
    const { origin, pathname, hash } = window.location
    return `${origin}${pathname}?${query.toString()}${hash}`
  })
  return {
    link,
    local: computed(() => /^https?:\/\/(localhost|127\.|\[::1\])/.test(link.value ?? '')),
    summary: computed(() =>
      rows.value.map(([name, value], index) => (index < 3 ? value : sentences(name, value))).join(' · '),
    ),
    source: () => `LoRA Lens ${version} · ${today()}${link.value ? ` · ${link.value}` : ''}`,
  }
}
