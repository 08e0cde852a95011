/** Which model is asked about: one of the catalogue, one that was looked up by name, or the reader's config.json. */
import { computed, ref, shallowReactive, shallowRef, watch, type ComputedRef, type Ref } from 'vue'
import { request, type ApiError, type Schemas } from '@/shared/api/client'
import { DEFAULTS, type Part2Settings } from '@/shared/url/part2Query'
import type { JsonObject } from '@/shared/recipe/words'
import type { ModelChoice } from './requests'

export interface Choice {
  choice: ComputedRef<ModelChoice>
  /** The reader's own config.json, when one was given. */
  ownConfig: Ref<JsonObject | null>
  /**
   * Finds a model by its name and shows it, unless another has been chosen meanwhile; the Hub is asked only with
   * `fromHub`. Throws what the API refuses, and when it is called off.
   */
  lookUp: (name: string, fromHub: boolean, signal?: AbortSignal) => Promise<Schemas['ResolvedModel']>
  /** How a name that was typed was understood, as long as its model is shown. */
  readAs: ComputedRef<readonly string[]>
  /** A name of the address that means no model; the default model is shown in its place. */
  missing: Ref<string | null>
  /** While the address's own config.json is read: nothing is asked yet. */
  opening: Readonly<Ref<boolean>>
  /** Whether a link to this page says all that is shown. */
  linkable: ComputedRef<boolean>
}

/** With the reader's own config.json alone, so fetched when there is one. */
const configText = () => import('@/shared/url/configText')

export function useModelChoice(settings: Part2Settings): Choice {
  const ownConfig = shallowRef<JsonObject | null>(null)
  /** Configs of models that were looked up by name. */
  const found = shallowReactive(new Map<string, JsonObject>())
  const typed = shallowRef<{ id: string; notes: readonly string[] }>()
  const readAs = computed(() => (typed.value && typed.value.id === settings.model ? typed.value.notes : []))
  const missing = ref<string | null>(null)
  const choice = computed<ModelChoice>(() => {
    const config = ownConfig.value ?? found.get(settings.model)
    return config ? { config } : { model: settings.model }
  })

  async function lookUp(name: string, fromHub: boolean, signal?: AbortSignal): Promise<Schemas['ResolvedModel']> {
    const before = choice.value
    const body = { model: name, from_hub: fromHub }
    const model = await request<Schemas['ResolvedModel']>('POST', '/api/models/resolve', body, signal)
    if (choice.value !== before) return model
    if (model.source !== 'catalogue') found.set(model.id, model.config as JsonObject)
    ownConfig.value = null
    missing.value = null
    typed.value = { id: model.id, notes: model.model.read_as ?? [] }
    settings.model = model.id
    return model
  }

  watch(
    () => settings.model,
    (model) => {
      if (model !== DEFAULTS.model) missing.value = null
    },
  )

  /** The config that was last packed or unpacked, and its text. */
  let known: { config: JsonObject | null; text: string | null } = { config: null, text: null }
  const opening = ref(false)
  watch(ownConfig, async (config) => {
    if (config === known.config) return
    const text = config && (await (await configText()).packConfig(config))
    if (ownConfig.value !== config) return
    known = { config, text }
    settings.config = text
  })
  watch(
    () => settings.config,
    async (text) => {
      if (text === known.text) return
      opening.value = true
      const config = text === null ? null : await (await configText()).unpackConfig(text)
      if (settings.config !== text) return
      known = { config, text }
      ownConfig.value = config
      opening.value = false
      if (text === null || config !== null) return
      missing.value = 'config.json'
      settings.config = known.text = null
    },
    { immediate: true },
  )
  return {
    choice,
    ownConfig,
    lookUp,
    missing,
    readAs,
    opening,
    linkable: computed(() => ownConfig.value === null || settings.config !== null),
  }
}

/**
 * A link may name a model that this machine has in a folder or has fetched before. One that is nowhere must not leave
 * an empty page behind: the numbers fall back, and a message stays.
 */
export function useFallback(settings: Part2Settings, choice: Choice, error: ComputedRef<ApiError | null>): void {
  watch(error, async (found) => {
    const name = settings.model
    if (found?.problem.code !== 'unknown_model' || choice.ownConfig.value || name === DEFAULTS.model) return
    try {
      await choice.lookUp(name, false)
    } catch {
      choice.missing.value = name
      if (settings.model === name) settings.model = DEFAULTS.model
    }
  })
}
