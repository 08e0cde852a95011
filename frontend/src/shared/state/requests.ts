/** Settings in the API's words. Names only: what they mean in bytes is the API's business. */
import { isMeantFor } from '@/shared/recipe/set'
import { WORDS, type Json, type JsonObject } from '@/shared/recipe/words'
import type { Part2Settings } from '@/shared/url/part2Query'

/** A model of the catalogue, or the reader's own config.json. */
export type ModelChoice = { model: string } | { config: JsonObject }

/** The method that is compared with full fine-tuning. */
export const lightMethod = (settings: Part2Settings): string => (settings.method === 'full' ? 'lora' : settings.method)

/** The words that are set; what the others are by default is the API's knowledge. */
export function recipeOf(settings: Part2Settings, method: string): JsonObject {
  const recipe: JsonObject = {
    micro_batch_size: settings.batch,
    sequence_length: settings.length,
    lora: { rank: settings.rank },
  }
  for (const word of WORDS) {
    const value = settings.words[word.name]
    if (value === undefined || !isMeantFor(method, settings.words, word)) continue
    const [group, field] = word.path.split('.') as [string, string?]
    if (field === undefined) recipe[group] = value
    else recipe[group] = { ...(recipe[group] as JsonObject | undefined), [field]: value } satisfies Record<string, Json>
  }
  return recipe
}

/** The question of one method on the chosen GPU; whoever asks it in these words shares the answer. */
export function fitBody(choice: ModelChoice, settings: Part2Settings, method: string): string {
  const { gpu, tokens } = settings
  return JSON.stringify({ ...choice, method, gpu, tokens, recipe: recipeOf(settings, method) })
}

/** The three methods always shown, and the chosen one when it is another. */
export function methodsOf(settings: Part2Settings): string[] {
  const three = ['full', 'lora', 'qlora']
  return three.includes(settings.method) ? three : [...three, settings.method]
}

/** One request where all methods have the same recipe, as a rule; QLoRA's own where words are for it alone. */
export function bodiesOf(choice: ModelChoice, settings: Part2Settings): JsonObject[] {
  const bodies = new Map<string, JsonObject & { methods: string[] }>()
  for (const method of methodsOf(settings)) {
    const recipe = recipeOf(settings, method)
    const key = JSON.stringify(recipe)
    const found = bodies.get(key) ?? { ...choice, methods: [], recipe }
    found.methods.push(method)
    bodies.set(key, found)
  }
  return [...bodies.values()]
}
