/** A step's seconds, gathered into what a picture can show, and what one method spends otherwise than another. */
export type Parts = Record<string, number>

/** In the order in which the bars stack them. What is not named here is the rest. */
const GROUP_OF: Record<string, string> = {
  products: 'products',
  weight_gradients: 'weight_gradients',
  narrow_products: 'narrow_products',
  attention: 'attention',
  unpacking: 'unpacking',
  recomputation: 'recomputation',
  elementwise: 'elementwise',
  optimizer: 'optimizer',
  communication: 'communication',
  bubble: 'bubble',
  waiting: 'waiting',
  rollout_prefill: 'generation',
  rollout_decode: 'generation',
}
export const REST = 'rest'
export const GROUPS = [...new Set(Object.values(GROUP_OF)), REST]
/** A difference under this share of the step has no word of its own; those that together are more have one. */
export const WORTH_SAYING = 0.02
export const SMALL = 'small'

export interface GroupTime {
  group: string
  seconds: number
}

export function grouped(parts: Parts): GroupTime[] {
  const sums = new Map<string, number>(GROUPS.map((group) => [group, 0]))
  for (const [name, seconds] of Object.entries(parts)) {
    const group = GROUP_OF[name] ?? REST
    sums.set(group, sums.get(group)! + seconds)
  }
  return [...sums].map(([group, seconds]) => ({ group, seconds })).filter((row) => row.seconds > 0)
}

/** What the second step saves against the first and what it spends more, largest first, in seconds. */
export function difference(first: Parts, second: Parts): { saved: GroupTime[]; spent: GroupTime[] } {
  const before = new Map(grouped(first).map((row) => [row.group, row.seconds]))
  const after = new Map(grouped(second).map((row) => [row.group, row.seconds]))
  const least = WORTH_SAYING * [...before.values()].reduce((sum, seconds) => sum + seconds, 0)
  const rows = GROUPS.map((group) => ({ group, seconds: (after.get(group) ?? 0) - (before.get(group) ?? 0) }))
  const side = (sign: number): GroupTime[] => {
    const own = rows.map((row) => ({ ...row, seconds: sign * row.seconds })).filter((row) => row.seconds > 0)
    const said = own.filter((row) => row.seconds >= least).sort((a, b) => b.seconds - a.seconds)
    const rest = own.filter((row) => row.seconds < least).reduce((sum, row) => sum + row.seconds, 0)
    return rest >= least ? [...said, { group: SMALL, seconds: rest }] : said
  }
  return { saved: side(-1), spent: side(1) }
}
