/**
 * The tensors of one step as arrays that a picture can be drawn from sixty times a second, and the one axis of time on which
 * several methods' steps run side by side: a layer's end is at the same place for all of them.
 */
import type { Schemas } from '@/shared/api/client'
import type { Category } from '@/shared/api/plan'

export type Served = Schemas['Lifetimes']

export const CATEGORIES: readonly Category[] = [
  'weights',
  'adapter',
  'optimizer_state',
  'gradients',
  'activations',
  'logits',
  'temporaries',
]

/** A stretch of the step: between these events a place of the model is walked, in a phase. */
export interface Stretch {
  phase: string
  label: string
  from: number
  to: number
}

export interface Life {
  method: string
  count: number
  bytes: Float64Array
  /** Numbers in `CATEGORIES`, before and from event `turn` on. */
  category: Uint8Array
  turned: Uint8Array
  turn: Float64Array
  place: Uint16Array
  /** -1: there before the step. A tensor is alive after so many events that birth < events <= death. */
  birth: Float64Array
  death: Float64Array
  /** Weights that learn; true for all that is no weight. */
  trains: Uint8Array
  name: string[]
  /** Bytes alive after each number of events, from none to all and the release of gradients behind them. */
  total: Float64Array
  stretches: Stretch[]
  peakBytes: number
}

const numberOf = (category: Category): number => CATEGORIES.indexOf(category)

export function readLife(served: Served, places: readonly string[]): Life {
  const { kinds, resting, tensors, events } = served
  const count = resting.kind.length + tensors.kind.length
  const own = served.places.map((place) => places.indexOf(place))
  const life: Life = {
    method: served.method,
    count,
    bytes: new Float64Array(count),
    category: new Uint8Array(count),
    turned: new Uint8Array(count),
    turn: new Float64Array(count).fill(Infinity),
    place: new Uint16Array(count),
    birth: new Float64Array(count),
    death: new Float64Array(count),
    trains: new Uint8Array(count).fill(1),
    name: [],
    total: new Float64Array(events + 2),
    stretches: [],
    peakBytes: served.peak_bytes,
  }
  const put = (index: number, kind: number, place: number, birth: number, death: number): void => {
    const { name, bytes, category } = kinds[kind]!
    life.bytes[index] = bytes
    life.category[index] = life.turned[index] = numberOf(category)
    life.place[index] = own[place]!
    life.birth[index] = birth
    life.death[index] = death
    life.name[index] = name
  }
  resting.kind.forEach((kind, index) => {
    put(index, kind, resting.place[index]!, -1, Infinity)
    life.trains[index] = resting.trains[index] ? 1 : 0
  })
  const first = resting.kind.length
  // What nobody releases in the step goes when the next one begins.
  tensors.kind.forEach((kind, index) =>
    put(first + index, kind, tensors.place[index]!, tensors.birth[index]!, tensors.death[index] ?? events),
  )
  for (const { tensor, event, kind } of served.renames) {
    life.turn[first + tensor] = event
    life.turned[first + tensor] = numberOf(kinds[kind]!.category)
    life.name[first + tensor] = kinds[kind]!.name
  }
  sumUp(life)
  life.stretches = stretchesOf(served, life, places)
  return life
}

function sumUp(life: Life): void {
  const { total, bytes, birth, death } = life
  for (let index = 0; index < life.count; index++) {
    total[birth[index]! + 1]! += bytes[index]!
    if (death[index]! + 1 < total.length) total[death[index]! + 1]! -= bytes[index]!
  }
  for (let event = 1; event < total.length; event++) total[event]! += total[event - 1]!
}

/** Between marks; the way back through head and loss is told from the last layer's by where its tensors stand. */
function stretchesOf(served: Served, life: Life, places: readonly string[]): Stretch[] {
  const found: Stretch[] = []
  let from = 0
  const begun = new Set<string>()
  for (const { phase, label, event } of served.marks) {
    if (phase === 'backward' && !begun.has(phase)) {
      const place = places.indexOf(label)
      let layer = event
      for (let index = 0; index < life.count; index++)
        if (life.place[index] === place && life.birth[index]! >= from && life.birth[index]! < layer)
          layer = life.birth[index]!
      if (layer > from && layer < event) found.push({ phase, label: 'loss', from, to: layer })
      if (layer < event) from = layer
    }
    begun.add(phase)
    found.push({ phase, label, from, to: event })
    from = event
  }
  return found
}

/** A stretch that all methods have, with its room on the axis. */
export interface Slot {
  phase: string
  label: string
  /** On the axis from 0 to 1. */
  from: number
  to: number
  /** The events at its two ends, for each method. */
  events: [number, number][]
}

/** Room before the step and behind it, in which nothing happens. */
const REST = 0.03
const SHARE: Record<string, number> = { backward: 0.48, optimizer: 0.08 }

export function slotsOf(lives: readonly Life[]): Slot[] {
  const keyed = lives.map((life) => {
    const seen = new Map<string, number>()
    return new Map(
      life.stretches.map((stretch) => {
        const name = `${stretch.phase} ${stretch.label}`
        const nth = (seen.get(name) ?? 0) + 1
        seen.set(name, nth)
        return [`${name} ${nth}`, stretch] as const
      }),
    )
  })
  const common = [...keyed[0]!.keys()].filter((key) => keyed.every((map) => map.has(key)))
  const phases = [...new Set(common.map((key) => keyed[0]!.get(key)!.phase))]
  const others = phases.filter((phase) => !(phase in SHARE)).length
  const rest = 1 - 2 * REST - phases.reduce((sum, phase) => sum + (SHARE[phase] ?? 0), 0)
  const slots: Slot[] = []
  const ends = lives.map(() => 0)
  let at = REST
  for (const phase of phases) {
    const own = common.filter((key) => keyed[0]!.get(key)!.phase === phase)
    const room = own.map((key) => (keyed[0]!.get(key)!.label === 'loss' ? Math.max(1, 0.14 * own.length) : 1))
    const scale = (SHARE[phase] ?? rest / others) / room.reduce((sum, value) => sum + value, 0)
    own.forEach((key, index) => {
      const { label } = keyed[0]!.get(key)!
      const to = at + room[index]! * scale
      const events = keyed.map((map, method): [number, number] => {
        const begin = ends[method]!
        ends[method] = Math.max(begin, map.get(key)!.to)
        return [begin, ends[method]!]
      })
      slots.push({ phase, label, from: at, to, events })
      at = to
    })
  }
  return slots
}

/** How many events lie behind a method at a place of the axis; fractions are on the way to the next one. */
export function eventAt(slots: readonly Slot[], method: number, time: number): number {
  const last = slots.at(-1)
  if (!last || time <= slots[0]!.from) return 0
  if (time >= last.to) return last.events[method]![1] + Math.min(1, (2 * (time - last.to)) / REST)
  let low = 0
  let high = slots.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (slots[middle]!.to < time) low = middle + 1
    else high = middle
  }
  const slot = slots[low]!
  const [from, to] = slot.events[method]!
  return from + ((to - from) * (time - slot.from)) / (slot.to - slot.from || 1)
}

/** The stretch at a place of the axis; none before the step and behind it. */
export const slotAt = (slots: readonly Slot[], time: number): Slot | undefined =>
  slots.find((slot) => time > slot.from && time <= slot.to)

export const aliveAt = (life: Life, index: number, event: number): boolean =>
  life.birth[index]! < event && event <= life.death[index]!

/** Whole events that lie behind; what is on its way has not happened. */
export const whole = (life: Life, event: number): number =>
  Math.max(0, Math.min(life.total.length - 1, Math.floor(event + 1e-9)))

/** Bytes of each category after so many events. */
export function sumsAt(life: Life, event: number): number[] {
  const sums = CATEGORIES.map(() => 0)
  for (let index = 0; index < life.count; index++)
    if (aliveAt(life, index, event))
      sums[event > life.turn[index]! ? life.turned[index]! : life.category[index]!]! += life.bytes[index]!
  return sums
}
