/** Settings in the API's words. Names only: what they mean in bytes is the API's business. */
import type { OptimizerName, Part2Settings, Precision } from '@/shared/url/part2Query'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonObject = { [key: string]: Json }

const PRECISION: Record<Precision, JsonObject> = {
  bf16: { weights_dtype: 'bfloat16', autocast: 'bfloat16' },
  mixed: { weights_dtype: 'float32', autocast: 'bfloat16' },
  'pure-bf16': { weights_dtype: 'bfloat16', autocast: null, lora: { adapter_dtype: 'bfloat16' } },
  fp32: { weights_dtype: 'float32', autocast: null },
}

const OPTIMIZER: Record<OptimizerName, string> = {
  adamw: 'adamw_fused',
  adamw8bit: 'adamw_8bit',
  paged8bit: 'paged_adamw_8bit',
  sgd: 'sgd',
  adafactor: 'adafactor',
  lion: 'lion',
}

/** A model of the catalogue, or the reader's own config.json. */
export type ModelChoice = { model: string } | { config: JsonObject }

const targetsOf = (names: string[]): Json => (names.length === 1 && names[0] === 'all-linear' ? 'all-linear' : names)

/** The method that is compared with full fine-tuning. */
export const lightMethod = (settings: Part2Settings): string => (settings.method === 'full' ? 'lora' : settings.method)

export function recipeOf(settings: Part2Settings): JsonObject {
  const { lora, ...precision } = PRECISION[settings.precision] as JsonObject & { lora?: JsonObject }
  return {
    ...precision,
    micro_batch_size: settings.batch,
    sequence_length: settings.length,
    optimizer: OPTIMIZER[settings.optimizer],
    gradient_checkpointing: settings.checkpointing,
    loss: settings.loss,
    lora: {
      rank: settings.rank,
      alpha: settings.alpha ?? 2 * settings.rank,
      // Which layers a family's adapters go to when nobody says so is the API's knowledge.
      ...(settings.targets && { target_modules: targetsOf(settings.targets) }),
      ...lora,
    },
  }
}

/** The three methods always shown, and the chosen one when it is another. */
export function methodsOf(settings: Part2Settings): string[] {
  const three = ['full', 'lora', 'qlora']
  return three.includes(settings.method) ? three : [...three, settings.method]
}

export function bodyOf(choice: ModelChoice, settings: Part2Settings): JsonObject {
  return { ...choice, methods: methodsOf(settings), recipe: recipeOf(settings) }
}
