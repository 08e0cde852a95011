/** The training that a message or a snapshot is of, as /api/explain takes it. */
import type { Schemas } from '@/shared/api/client'
import type { JsonObject } from '@/shared/recipe/words'
import { recipeOf, type ModelChoice } from '@/shared/state/requests'
import type { Part2Settings } from '@/shared/url/part2Query'

export type WatchedRun = Schemas['WatchedRun']
/** Which training: the page's settings, the files above, one that is watched, or nobody knows. */
export const TRAININGS = ['page', 'files', 'run', 'none'] as const
export type Training = (typeof TRAININGS)[number]

export interface Known {
  choice: ModelChoice
  settings: Part2Settings
  files: Readonly<Record<string, string>>
  run: WatchedRun | null
}

/** Whether there is such a training to ask with. */
export function isThere(training: Training, { files, run }: Known): boolean {
  if (training === 'files') return Object.keys(files).length > 0
  return training !== 'run' || run?.model != null
}

export function setUpOf(training: Training, { choice, settings, files, run }: Known): JsonObject {
  if (training === 'page') return { ...choice, method: settings.method, recipe: recipeOf(settings, settings.method) }
  if (training === 'files') return { files: { ...files } }
  if (training === 'run' && run?.model != null)
    return { model: run.model, method: run.method, recipe: run.recipe as JsonObject }
  return {}
}
