/** Plans for a few models that ship with the page, for the time when no server answers. */
import { OfflineError } from '@/shared/api/client'
import { covers, type Plan, type Variables } from '@/shared/api/plan'
import type { JsonObject } from '@/shared/recipe/words'

interface Row {
  body: JsonObject
  plans: Plan[]
}
let rows: Promise<Row[]> | undefined

/** Fetches them: to be called while the server still answers, for it is the server that has them. */
export function loadBuiltInPlans(): Promise<Row[]> {
  rows ??= import('@/shared/api/builtInPlans.json').then((module) => module.default as unknown as Row[])
  rows.catch(() => (rows = undefined))
  return rows
}

/** Everything of a request that a plan does not leave open. */
function fixedPart(body: JsonObject): string {
  const recipe = body.recipe as JsonObject
  const lora = recipe.lora as JsonObject
  const rest = { ...recipe, micro_batch_size: 0, sequence_length: 0, lora: { ...lora, rank: 0 } }
  return JSON.stringify([body.model, body.methods, rest])
}

/** The built-in plans that answer this request; throws `OfflineError` when there are none. */
export async function builtInPlans(body: JsonObject): Promise<Plan[]> {
  const all = await loadBuiltInPlans().catch(() => [])
  const recipe = body.recipe as JsonObject
  const at: Variables = {
    micro_batch_size: Number(recipe.micro_batch_size),
    sequence_length: Number(recipe.sequence_length),
    rank: Number((recipe.lora as JsonObject).rank),
  }
  const wanted = fixedPart(body)
  const found = all.find((row) => fixedPart(row.body) === wanted && row.plans.every((plan) => covers(plan, at)))
  if (!found) throw new OfflineError()
  return found.plans
}
