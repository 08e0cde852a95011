/** Asks for the tensors of the step that is shown, and makes the scene of them. */
import { useQuery } from '@tanstack/vue-query'
import { computed, type ComputedRef, type Ref } from 'vue'
import { request, type Schemas } from '@/shared/api/client'
import { useLocale } from '@/shared/i18n'
import { formatBytes } from '@/shared/lib/format'
import { useAnswers } from '@/shared/state/answers'
import { bodiesOf, lightMethod } from '@/shared/state/requests'
import { useSettings } from '@/shared/state/settings'
import type { JsonObject } from '@/shared/recipe/words'
import { readLife, slotsOf } from './lives'
import type { Scene } from './scene'

export interface Story {
  model: string
  scene: Scene
  checkpointing: boolean
}

export function useStory(wanted: Ref<boolean>): {
  story: ComputedRef<Story | undefined>
  current: ComputedRef<boolean>
  error: Ref<Error | null>
} {
  const { t, te, locale } = useLocale()
  const { settings } = useSettings()
  const answers = useAnswers()
  const bodies = computed(() => {
    const methods = ['full', lightMethod(settings)]
    return JSON.stringify(
      bodiesOf(answers.choice.value, settings).flatMap((body) => {
        const own = (body.methods as string[]).filter((method) => methods.includes(method))
        return own.length > 0 ? [{ ...body, methods: own }] : []
      }),
    )
  })
  const query = useQuery({
    queryKey: ['lifetimes', bodies],
    queryFn: async ({ signal, queryKey }) => {
      const ask = (body: JsonObject) => request<Schemas['LifetimesAnswer']>('POST', '/api/lifetimes', body, signal)
      const found = await Promise.all((JSON.parse(queryKey[1]!) as JsonObject[]).map(ask))
      const lives = found.flatMap((answer) => answer.lifetimes)
      const places = [...new Set(lives.flatMap((one) => one.places))]
      const read = lives.map((one) => readLife(one, places))
      const checkpointing = (lives[0]!.recipe as { gradient_checkpointing?: boolean }).gradient_checkpointing === true
      return { model: found[0]!.model.name, places, lives: read, slots: slotsOf(read), checkpointing }
    },
    enabled: computed(() => wanted.value && answers.settled.value),
    staleTime: Infinity,
    // Thousands of numbers, which nobody changes.
    structuralSharing: false,
  })
  function label(place: string): string {
    const layer = /\.(\d+)$/.exec(place)
    if (layer) return layer[1]!
    return te(`story.place.${place}`) ? t(`story.place.${place}`) : ''
  }
  /** While another one is on its way the earlier one stays, with its own model's name. */
  const story = computed<Story | undefined>((before) => {
    const data = query.data.value
    if (!data) return before
    const gpu = answers.gpu.value
    return {
      model: data.model,
      checkpointing: data.checkpointing,
      scene: {
        lives: data.lives,
        slots: data.slots,
        places: data.places,
        labels: data.places.map(label),
        limit: gpu ? { name: gpu.name, bytes: gpu.memory_bytes } : null,
        say: (bytes) => formatBytes(bytes, locale.value),
      },
    }
  })
  return {
    story,
    current: computed(() => query.data.value !== undefined),
    error: computed(() => query.error.value ?? answers.error.value),
  }
}
