/** Where the moments of a step lie on the time axis: each phase has its share, each layer the same room within it. */
import type { PlanValues } from '@/shared/api/plan'

/** Room of a phase beside the others; what an objective adds to a step has less than the step itself. */
const ROOM: Record<string, number> = { forward: 0.42, backward: 0.46, optimizer: 0.12 }
const ROOM_BESIDE = 0.2

type Segment = PlanValues['timeline'][number]

/** A phase on the axis; one that is taken up again after another has two. */
export interface Span {
  phase: string
  from: number
  to: number
}

export interface Slot {
  phase: string
  label: string
  /** So many layers, or units of layers, that change evenly from `first` to `last`. */
  repeat: number
  from: number
  to: number
  first: number[]
  last: number[]
}

/** Segments in a row that are of one phase. */
function runs(values: PlanValues): [string, Segment[]][] {
  const found: [string, Segment[]][] = []
  for (const segment of values.timeline) {
    const last = found.at(-1)
    if (last?.[0] === segment.phase) last[1].push(segment)
    else found.push([segment.phase, [segment]])
  }
  return found
}

export function spans(values: PlanValues): Span[] {
  const room = runs(values).map(([phase]) => [phase, ROOM[phase] ?? ROOM_BESIDE] as const)
  const total = room.reduce((all, [, own]) => all + own, 0)
  let at = 0
  return room.map(([phase, own]) => ({ phase, from: at / total, to: (at += own) / total }))
}

/** Rows of equal layers share a segment; short steps such as the loss keep enough room to be seen. */
export function slots(values: PlanValues): Slot[] {
  const found: Slot[] = []
  const places = spans(values)
  runs(values).forEach(([phase, segments], place) => {
    const layers = segments.reduce((all, segment) => all + segment.repeat, 0)
    const room = segments.map((segment) => Math.max(segment.repeat, layers * 0.07))
    const total = room.reduce((all, value) => all + value, 0) || 1
    const { from, to } = places[place]!
    let at = from
    segments.forEach((segment, index) => {
      const next = at + ((to - from) * room[index]!) / total
      const { label, repeat, first, last } = segment
      found.push({ phase, label, repeat, from: at, to: next, first, last })
      at = next
    })
  })
  return found
}

export const sum = (parts: readonly number[]): number => parts.reduce((total, part) => total + part, 0)

/** The layers of a slot, first and last: of a run of equal ones those of its `index`th, which on the way back come last to first. */
export function layersAt({ phase, label, repeat }: Slot, index: number): [number, number] | null {
  const found = /^(?:.*\.)?(?:layers|h|blocks?)\.(\d+)(?:\.\.(\d+))?$/.exec(label)
  if (!found) return null
  const [from, to] = [Number(found[1]), Number(found[2] ?? found[1])]
  const each = (to - from + 1) / repeat
  const first = from + each * (phase === 'backward' ? repeat - 1 - index : index)
  return [first, first + each - 1]
}

/** Bytes per category at a place of the time axis, and which of a run's layers it is at. */
export function at(found: readonly Slot[], place: number): { slot: Slot; index: number; parts: number[] } | null {
  const slot = found.find((item) => place >= item.from && place <= item.to) ?? found.at(-1)
  if (!slot) return null
  const part = Math.min(1, Math.max(0, (place - slot.from) / (slot.to - slot.from || 1)))
  const steps = slot.repeat - 1
  const index = Math.round(part * steps)
  const share = steps ? index / steps : part
  return { slot, index, parts: slot.first.map((first, kind) => first + (slot.last[kind]! - first) * share) }
}
