/** Where the moments of a step lie on the time axis: each phase has its share, each layer the same room within it. */
import type { PlanValues } from '@/shared/api/plan'

export const PHASES = ['forward', 'backward', 'optimizer'] as const
const SHARE: Record<string, readonly [number, number]> = {
  forward: [0, 0.42],
  backward: [0.42, 0.88],
  optimizer: [0.88, 1],
}

export interface Slot {
  phase: string
  label: string
  from: number
  to: number
  first: number[]
  last: number[]
}

export const phaseRange = (phase: string): readonly [number, number] => SHARE[phase] ?? [0, 1]

/** Rows of equal layers share a segment; short steps such as the loss keep enough room to be seen. */
export function slots(values: PlanValues): Slot[] {
  const found: Slot[] = []
  for (const phase of PHASES) {
    const segments = values.timeline.filter((segment) => segment.phase === phase)
    const layers = segments.reduce((sum, segment) => sum + segment.repeat, 0)
    const room = segments.map((segment) => Math.max(segment.repeat, layers * 0.07))
    const total = room.reduce((sum, value) => sum + value, 0) || 1
    const [from, to] = phaseRange(phase)
    let at = from
    segments.forEach((segment, index) => {
      const next = at + ((to - from) * room[index]!) / total
      found.push({ phase, label: segment.label, from: at, to: next, first: segment.first, last: segment.last })
      at = next
    })
  }
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
