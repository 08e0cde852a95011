/** What the text beside the picture says: the steps of the story, each at its own moment, with the numbers of that moment. */
import { CATEGORIES, aliveAt, eventAt, sumsAt, whole, type Life, type Slot } from './lives'

const STEPS = ['before', 'first', 'forward', 'loss', 'middle', 'backward', 'update', 'after'] as const
export type StepId = (typeof STEPS)[number]

const isLayer = (slot: Slot): boolean => /\.\d+$/.test(slot.label)

/** Where on the axis each step of the story stands; steps that a model does not have are left out. */
export function momentsOf(slots: readonly Slot[]): { id: StepId; time: number }[] {
  const ahead = slots.filter((slot) => slot.phase !== 'backward' && slot.phase !== 'optimizer')
  const back = slots.filter((slot) => slot.phase === 'backward')
  const layers = ahead.filter(isLayer)
  const returning = back.filter(isLayer)
  const optimizer = slots.find((slot) => slot.phase === 'optimizer')
  const at: Record<StepId, number | undefined> = {
    before: 0,
    first: layers[0]?.to,
    forward: layers.length > 1 ? layers.at(-1)!.to : undefined,
    loss: ahead.findLast((slot) => slot.label === 'loss')?.to,
    middle: returning.length > 2 ? returning[Math.floor(returning.length / 2)]!.to : undefined,
    backward: back.at(-1)?.to,
    update: optimizer && (optimizer.from + optimizer.to) / 2,
    after: 1,
  }
  return STEPS.flatMap((id) => (at[id] === undefined ? [] : [{ id, time: at[id] }])).filter(
    ({ time }, index, all) => index === 0 || time > all[index - 1]!.time,
  )
}

export interface Kind {
  name: string
  category: number
  count: number
  bytes: number
  /** A weight that does not train. */
  frozen: boolean
}

export interface Fact {
  method: string
  /** Alive at the step, in all and of each category. */
  bytes: number
  parts: number[]
  /** Allocated and released since the step before. */
  born: { count: number; bytes: number }
  freed: { count: number; bytes: number }
  /** Of what was allocated since the step before, what is alive now. */
  kept: { count: number; bytes: number }
  /** The largest kinds of tensors that are alive. */
  largest: Kind[]
}

const MOST = 5

export function factsAt(life: Life, method: number, slots: readonly Slot[], time: number, before: number): Fact {
  const now = whole(life, eventAt(slots, method, time))
  const since = whole(life, eventAt(slots, method, before))
  const none = (): { count: number; bytes: number } => ({ count: 0, bytes: 0 })
  const [born, freed, kept] = [none(), none(), none()]
  const kinds = new Map<string, Kind>()
  for (let index = 0; index < life.count; index++) {
    const bytes = life.bytes[index]!
    const add = (sum: { count: number; bytes: number }): void => {
      sum.count += 1
      sum.bytes += bytes
    }
    const alive = aliveAt(life, index, now)
    if (life.birth[index]! >= since && life.birth[index]! < now) {
      add(born)
      if (alive) add(kept)
    }
    if (life.death[index]! >= since && life.death[index]! < now) add(freed)
    if (!alive) continue
    const category = now > life.turn[index]! ? life.turned[index]! : life.category[index]!
    const frozen = CATEGORIES[category] === 'weights' && life.trains[index] === 0
    const kind = kinds.get(life.name[index]!) ?? { name: life.name[index]!, category, count: 0, bytes: 0, frozen }
    add(kind)
    kinds.set(kind.name, kind)
  }
  const parts = sumsAt(life, now)
  return {
    method: life.method,
    bytes: parts.reduce((sum, part) => sum + part, 0),
    parts,
    born,
    freed,
    kept,
    largest: [...kinds.values()].sort((a, b) => b.bytes - a.bytes).slice(0, MOST),
  }
}

export const part = (fact: Fact | undefined, category: (typeof CATEGORIES)[number]): number =>
  fact?.parts[CATEGORIES.indexOf(category)] ?? 0
