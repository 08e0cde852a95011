/** A plan for several GPUs: what it is called, and the words that make the settings this plan. */
import type { Schemas } from '@/shared/api/client'
import type { FieldChange } from '@/shared/recipe/changes'

export type Plan = Schemas['PlanRow']
type Translate = (key: string, named: Record<string, unknown>) => string

const DIMENSIONS = ['dp_replicate', 'dp_shard', 'cp', 'tp', 'pp', 'ep'] as const

/** The dimensions of the mesh that are more than one, outermost first. */
export function meshText(plan: Plan, t: Translate): string {
  const parts = DIMENSIONS.filter((name) => (plan.mesh[name] ?? 1) > 1).map((name) =>
    t(`plans.mesh.${name}`, { size: plan.mesh[name] }),
  )
  if (plan.words.reshard_after_forward === false) parts.push(t('plans.kept', {}))
  return parts.join(' · ')
}

/** In the order in which the settings take them: how many GPUs there are brings a strategy along. */
export function planChanges(plan: Plan): FieldChange[] {
  const words = Object.entries(plan.words).map(([field, to]) => ({ field, to }))
  return [
    ...words,
    { field: 'micro_batch_size', to: plan.micro_batch_size },
    { field: 'gradient_accumulation_steps', to: plan.gradient_accumulation_steps },
    { field: 'gradient_checkpointing', to: plan.gradient_checkpointing },
  ]
}
