/** A plan for several GPUs: what it is called, and the words that make the settings this plan. */
import type { Schemas } from '@/shared/api/client'
import type { FieldChange } from '@/shared/recipe/changes'
import type { WordTexts } from '@/shared/recipe/useWordTexts'
import { WORD, type Json, type JsonObject, type Word, type Words } from '@/shared/recipe/words'

export type Plan = Schemas['PlanRow']
type Translate = (key: string, named: Record<string, unknown>) => string

/** Whose config a text to paste is, as its makers write it; any other by its name in the API. */
export const PROGRAMS: Readonly<Record<string, string>> = { deepspeed: 'DeepSpeed', megatron: 'Megatron-LM' }

const DIMENSIONS = ['dp_replicate', 'dp_shard', 'cp', 'tp', 'pp', 'ep'] as const

/** The dimensions of the mesh that are more than one, outermost first. */
export function meshText(plan: Plan, t: Translate): string {
  const parts = DIMENSIONS.filter((name) => (plan.mesh[name] ?? 1) > 1).map((name) =>
    t(`plans.mesh.${name}`, { size: plan.mesh[name] }),
  )
  if (plan.words.reshard_after_forward === false) parts.push(t('plans.kept', {}))
  return parts.join(' · ')
}

/** What is not said by the name of the mesh: the strategy, and what is on beside it. */
export function planWords(plan: Plan, texts: WordTexts): string[] {
  const strategy = (plan.recipe.parallelism as { strategy?: string } | undefined)?.strategy ?? 'none'
  const on = Object.keys(plan.words).filter((name) => plan.words[name] === true && WORD.has(name))
  return [
    ...(strategy === 'none' ? [] : [texts.name(WORD.get('strategy')!, strategy)]),
    ...on.map((name) => texts.label(WORD.get(name)!)),
  ]
}

/** What decides of a plan that is not safe, where its GPUs would hold it. */
export const decidesBeside = (plan: Plan, memory: number): string | null =>
  plan.fits || plan.decided_by === 'step' || plan.needed_bytes > memory ? null : plan.decided_by

const isSearched = (word: Word | undefined): boolean => word?.group === 'parallelism' && !word.kept

/** The recipe of a search among all plans, whichever of them the settings are now. */
export function openRecipe(recipe: JsonObject): JsonObject {
  const given = Object.entries((recipe.parallelism ?? {}) as JsonObject).filter(([name]) => WORD.get(name)?.kept)
  const parallelism: JsonObject = Object.fromEntries(given)
  // The plans that swap to a drive, and those that bring weights back.
  if (parallelism.offload_device === 'nvme') parallelism.strategy = 'zero3'
  else if (parallelism.offload === 'parameters') parallelism.strategy = 'fsdp2'
  return { ...recipe, parallelism }
}

/** In the order in which the settings take them: how many GPUs there are brings a strategy along. */
export function planChanges(plan: Plan, settings: Words): FieldChange[] {
  const own = plan.recipe.parallelism as unknown as Record<string, Json>
  const words = Object.entries(plan.words).map(([field, to]) => ({ field, to }))
  const others = Object.keys(settings)
    .filter((name) => isSearched(WORD.get(name)) && !(name in plan.words))
    .map((field) => ({ field, to: own[field] }))
  return [
    ...words,
    ...others,
    { field: 'micro_batch_size', to: plan.micro_batch_size },
    { field: 'gradient_accumulation_steps', to: plan.gradient_accumulation_steps },
    { field: 'gradient_checkpointing', to: plan.gradient_checkpointing },
  ]
}
