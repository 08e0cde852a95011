/**
 * Evaluates a plan: polynomials whose coefficients the API computed. There is no formula of memory here.
 *
 * value = sum over monomials k of coefficient[k] * product of variable ** exponent[k].
 */
import type { Schemas } from './client'

const VARIABLES = ['micro_batch_size', 'sequence_length', 'rank'] as const
export type VariableName = (typeof VARIABLES)[number]
export type Variables = Record<VariableName, number>

type Served = Schemas['Plan']
/** One of the seven kinds of bytes, in the order in which charts stack them. */
export type Category = Served['categories'][number]
type Polynomial = readonly number[]
type PlanMoment = Served['moments'][number]
/** What the page reads of a plan; those that it carries itself hold no more. */
export type Plan = Pick<
  Served,
  | 'model'
  | 'method'
  | 'regime'
  | 'variables'
  | 'valid'
  | 'monomials'
  | 'categories'
  | 'parameters'
  | 'storage'
  | 'moments'
  | 'timeline'
> &
  Partial<Pick<Served, 'remainders'>>

export interface Breakdown {
  category: Category
  bytes: number
}

export interface Segment {
  phase: string
  label: string
  repeat: number
  first: number[]
  last: number[]
}

export interface PlanValues {
  method: string
  totalParameters: number
  trainableParameters: number
  trainablePercent: number
  checkpointBytes: number
  adapterFileBytes: number
  peakBytes: number
  peakPhase: string
  peakLabel: string
  breakdown: Breakdown[]
  /** Each phase at its own fullest moment. */
  phases: { phase: string; bytes: number; breakdown: Breakdown[] }[]
  categories: Category[]
  /** Evaluated when it is first read: the first screen does without. */
  readonly timeline: Segment[]
}

/** Whether the plan may be evaluated at these numbers; outside one has to ask again. */
export function covers(plan: Plan, at: Variables): boolean {
  return VARIABLES.every((name) => {
    const range = plan.valid[name]
    const remainder = plan.remainders?.[name]
    return at[name] >= range[0] && at[name] <= range[1] && (!remainder || at[name] % remainder[0] === remainder[1])
  })
}

/** The value of each monomial at these numbers: computed once, used by every polynomial of the plan. */
function powers(plan: Plan, at: Variables): number[] {
  return plan.monomials.map((exponents) =>
    exponents.reduce((product, exponent, index) => product * at[plan.variables[index]!] ** exponent, 1),
  )
}

function dot(coefficients: Polynomial, values: readonly number[]): number {
  let sum = 0
  for (let k = 0; k < coefficients.length; k++) sum += coefficients[k]! * values[k]!
  return sum
}

const total = (parts: readonly number[]): number => parts.reduce((sum, part) => sum + part, 0)

export function evaluate(plan: Plan, at: Variables): PlanValues {
  const values = powers(plan, at)
  const all = (rows: Polynomial[]): number[] => rows.map((row) => dot(row, values))
  let peak: { moment: PlanMoment; parts: number[]; bytes: number } | null = null
  const phases = new Map<string, { parts: number[]; bytes: number }>()
  for (const moment of plan.moments) {
    const parts = all(moment.bytes)
    const bytes = total(parts)
    if (bytes > (phases.get(moment.phase)?.bytes ?? -1)) phases.set(moment.phase, { parts, bytes })
    if (peak === null || bytes > peak.bytes) peak = { moment, parts, bytes }
  }
  if (peak === null) throw new RangeError('a plan without moments')
  const breakdownOf = (parts: number[]): Breakdown[] =>
    plan.categories.map((category, index) => ({ category, bytes: parts[index]! }))
  const totalParameters = dot(plan.parameters.total, values)
  const trainableParameters = dot(plan.parameters.trainable, values)
  let timeline: Segment[] | undefined
  return {
    method: plan.method,
    totalParameters,
    trainableParameters,
    trainablePercent: totalParameters > 0 ? (100 * trainableParameters) / totalParameters : 0,
    checkpointBytes: dot(plan.storage.checkpoint_bytes, values),
    adapterFileBytes: dot(plan.storage.adapter_file_bytes, values),
    peakBytes: peak.bytes,
    peakPhase: peak.moment.phase,
    peakLabel: peak.moment.label,
    breakdown: breakdownOf(peak.parts),
    phases: [...phases].map(([phase, { parts, bytes }]) => ({ phase, bytes, breakdown: breakdownOf(parts) })),
    categories: plan.categories,
    get timeline() {
      return (timeline ??= plan.timeline.map((item) => ({
        phase: item.phase,
        label: item.label,
        repeat: item.repeat,
        first: all(item.first),
        last: all(item.last),
      })))
    },
  }
}
