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
      found.push({ phase, label: segment.label, from: at, to: next, first: segment.first, last: segment.last })
      at = next
    })
  })
  return found
}

export const sum = (parts: readonly number[]): number => parts.reduce((total, part) => total + part, 0)

/** Bytes per category at a place of the time axis: between the first and the last layer of a run, linearly. */
export function at(found: readonly Slot[], place: number): { slot: Slot; parts: number[] } | null {
  const slot = found.find((item) => place >= item.from && place <= item.to) ?? found.at(-1)
  if (!slot) return null
  const part = Math.min(1, Math.max(0, (place - slot.from) / (slot.to - slot.from || 1)))
  return { slot, parts: slot.first.map((first, index) => first + (slot.last[index]! - first) * part) }
}
