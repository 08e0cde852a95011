/** The page's settings: the address bar is the store, this is its typed, reactive face. */
import { inject, onScopeDispose, provide, reactive, ref, watch, type InjectionKey, type Ref } from 'vue'
import { useRoute, useRouter } from '@/shared/lib/router'
import { formatQuery, parseQuery, type Complaint, type Part2Settings, type Query } from '@/shared/url/part2Query'

/** Words of the address that are not settings: language and theme travel only when shared on purpose. */
const FOREIGN = ['lang', 'theme'] as const

export interface SettingsStore {
  settings: Part2Settings
  complaints: Ref<Complaint[]>
}

const KEY: InjectionKey<SettingsStore> = Symbol('settings')

/** `embeds`: the sections that may stand alone. */
export function provideSettings(embeds: readonly string[] = []): SettingsStore {
  const route = useRoute()
  const router = useRouter()
  const first = parseQuery(route.query, embeds)
  const settings = reactive(first.settings)
  const complaints = ref(first.complaints)
  let written = JSON.stringify(formatQuery(settings))
  let timer: ReturnType<typeof setTimeout> | undefined

  watch(settings, () => {
    const query = formatQuery(settings)
    const text = JSON.stringify(query)
    clearTimeout(timer)
    if (text === written) return
    timer = setTimeout(() => {
      // A picker is a step one wants to come back from; a slider's every stop is not.
      const before = JSON.parse(written) as Query
      const picked = ['m', 'config', 'g', 'k'].some((key) => before[key] !== query[key])
      written = text
      const foreign = Object.fromEntries(
        Object.entries(route.query).filter(([key]) => (FOREIGN as readonly string[]).includes(key)),
      )
      void router[picked ? 'push' : 'replace']({ path: route.path, query: { ...query, ...foreign }, hash: route.hash })
    }, 120)
  })

  watch(
    () => route.query,
    (query) => {
      const parsed = parseQuery(query, embeds)
      const text = JSON.stringify(formatQuery(parsed.settings))
      if (text === written || !route.path.startsWith('/part2')) return
      clearTimeout(timer)
      written = text
      complaints.value = parsed.complaints
      Object.assign(settings, parsed.settings)
    },
  )

  onScopeDispose(() => clearTimeout(timer))
  const store = { settings, complaints }
  provide(KEY, store)
  return store
}

export function useSettings(): SettingsStore {
  const store = inject(KEY)
  if (!store) throw new Error('useSettings needs provideSettings above it')
  return store
}
