/** Who holds what: the GPUs of one pipeline stage hold equally much, so a stage is asked about once. */
import type { Category } from '@/shared/api/plan'
import type { Json, JsonObject } from '@/shared/recipe/words'

const MOST_ASKED = 8

export interface Stage {
  /** Its number, from 0. */
  number: number
  /** How many GPUs have this stage. */
  gpus: number
}
export interface Part {
  category: Category
  bytes: number
}

/** The stages that are asked about: all, or the first two, the middle and the last of many. */
export function stages(words: Readonly<Record<string, Json | undefined>>): Stage[] {
  const gpus = Number(words.gpus ?? 1)
  const count = Math.max(1, Number(words.pp ?? 1))
  const all = Array.from({ length: count }, (_, number) => number)
  const asked = count <= MOST_ASKED ? all : [0, 1, Math.floor(count / 2), count - 1]
  return asked.map((number) => ({ number, gpus: Math.max(1, Math.floor(gpus / count)) }))
}

/** A recipe that asks about one stage. */
export function ofStage(recipe: JsonObject, stage: Stage, several: boolean): JsonObject {
  if (!several) return recipe
  return { ...recipe, parallelism: { ...(recipe.parallelism as JsonObject | undefined), pipeline_rank: stage.number } }
}

/** A breakdown as parts, in its order, without what is nothing. */
export function parts(breakdown: Readonly<Record<string, number>>): Part[] {
  return Object.entries(breakdown)
    .map(([name, bytes]) => ({ category: name.replace(/_bytes$/, '') as Category, bytes }))
    .filter((part) => part.bytes > 0)
}
