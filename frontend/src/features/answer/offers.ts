/** The best next steps out of the planner's answer: what makes the step fit, or what the room that is left allows. */
import type { Schemas } from '@/shared/api/client'
import { canApply, LARGEST_RANK, severalGpus, type FieldChange } from '@/shared/recipe/changes'

type FitAnswer = Schemas['FitAnswer']
export interface Offer {
  /** `room`: it fits, and this would still. */
  kind: 'change' | 'together' | 'several' | 'gpu' | 'room'
  changes: readonly FieldChange[]
  /** With it the step fits safely. */
  enough: boolean
  savesBytes?: number
  timeRatio?: number | null
  gpu?: Schemas['SmallestGpu']
}

const MOST = 3

function room({ largest }: FitAnswer): Offer[] {
  return ['micro_batch_size', 'sequence_length', 'rank'].flatMap((field) => {
    const row = largest[field]
    if (!row?.value) return []
    const most = Math.min(row.value, row.model_context ?? Infinity, field === 'rank' ? LARGEST_RANK : Infinity)
    return most > row.asked ? [{ kind: 'room', changes: [{ field, to: most }], enough: true } as const] : []
  })
}

export function offersOf(fit: FitAnswer): Offer[] {
  if (!fit.advice) return room(fit)
  const { changes, path, several_gpus: several, smallest_gpu: gpu } = fit.advice
  const singles: Offer[] = changes.filter(canApply).map((change) => ({
    kind: 'change',
    changes: [change],
    enough: change.fits === true,
    savesBytes: change.saves_bytes,
    timeRatio: change.time_ratio,
  }))
  const together: Offer[] =
    path && path.length > 1 && path.every(canApply) ? [{ kind: 'together', changes: path, enough: true }] : []
  const elsewhere: Offer[] = [
    ...(several ? [{ kind: 'several', changes: severalGpus(several), enough: true } as const] : []),
    ...(gpu ? [{ kind: 'gpu', changes: [{ field: 'gpu', to: gpu.id }], enough: true, gpu } as const] : []),
  ]
  const first = singles.filter(({ enough }) => enough).concat(together)
  // What saves memory is no help by itself to a run that stops for another reason.
  const rest = fit.decided_by === 'length' ? [] : singles.filter(({ enough }) => !enough)
  rest.sort((a, b) => b.savesBytes! - a.savesBytes!)
  const own = [...first, ...rest]
  // One way out is another card or more of them, where there is one.
  return [...own.slice(0, MOST - Math.min(1, elsewhere.length)), ...elsewhere, ...own.slice(MOST - 1)].slice(0, MOST)
}
