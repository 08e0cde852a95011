/** Geometry of the sweep chart, from its data and its width. */
import { computed, type ComputedRef, type Ref } from 'vue'
import { linear } from '@/shared/lib/scale'
import { fractionScale, positions, ratioScale, roomFor } from './axes'
import { curves, noiseBand, unbroken, type Dot, type View } from './curves'
import { lookOf, markPath, type Look } from './useVariants'
import type { Point, Value } from './types'

export const HEIGHT = 320
export const LEFT = 54
const RIGHT = 26
const TOP = 16
export const FLOOR = HEIGHT - 44

export interface Drawn extends Look {
  id: string
  line: string
  marks: string
  /** Quartiles of each point as one path of upright strokes. */
  whiskers: string
}

export interface Picture {
  x: (index: number) => number
  y: (value: number) => number
  log: boolean
  yTicks: number[]
  labels: { index: number; x: number; text: string }[]
  band: string
  drawn: Drawn[]
}

const p = (value: number): string => value.toFixed(1)

export function usePicture(source: {
  points: Ref<readonly Point[]>
  values: Ref<readonly Value[]>
  ids: Ref<readonly string[]>
  view: Ref<View>
  width: Ref<number>
  label: (value: Value) => string
}): ComputedRef<Picture> {
  return computed(() => {
    const { points, values, ids, view, width } = source
    const at = positions(values.value)
    const across = linear([0, 1], [LEFT + 14, width.value - RIGHT])
    const x = (index: number): number => across(at[index] ?? 0.5)
    const lines = curves(points.value, values.value, ids.value, view.value)
    const noise = view.value === 'ratio' ? noiseBand(points.value, values.value) : []
    const scale =
      view.value === 'ratio' ? ratioScale([...lines.flatMap((curve) => curve.dots), ...noise]) : fractionScale()
    const y = scale.scale([FLOOR, TOP])
    const measuredAt = points.value.map((point) => values.value.indexOf(point.value ?? ''))
    const texts = values.value.map(source.label)
    const ordered = values.value.every((value) => typeof value === 'number')
    const shown = roomFor(
      values.value.map((_, index) => x(index)),
      texts.map((text) => text.length * 7.2),
    )
    return {
      x,
      y,
      log: scale.log,
      yTicks: scale.ticks,
      labels: texts.flatMap((text, index) => (shown[index] ? [{ index, x: x(index), text }] : [])),
      band: bandPath(noise, ordered, x, y),
      drawn: lines.map(({ id, dots }) => {
        const look = lookOf(id)
        return {
          id,
          ...look,
          // Nothing lies between two data types: no line leads from one to the next.
          line: !ordered
            ? ''
            : unbroken(dots, measuredAt)
                .map((run) => `M${run.map((dot) => `${p(x(dot.index))} ${p(y(dot.y))}`).join('L')}`)
                .join(''),
          marks: dots.map((dot) => markPath(look.mark, x(dot.index), y(dot.y))).join(''),
          whiskers: dots
            .flatMap((dot) =>
              dot.low === null || dot.high === null ? [] : [`M${p(x(dot.index))} ${p(y(dot.low))}V${p(y(dot.high))}`],
            )
            .join(''),
        }
      }),
    }
  })
}

/** A closed band through all points; a point without neighbours gets a short one of its own. */
function bandPath(
  noise: readonly Dot[],
  ordered: boolean,
  x: (index: number) => number,
  y: (value: number) => number,
): string {
  if (noise.length > 1 && !ordered) return noise.map((dot) => bandPath([dot], ordered, x, y)).join('')
  if (noise.length === 0) return ''
  const ends =
    noise.length === 1
      ? [-12, 12].map((dx) => ({ at: x(noise[0]!.index) + dx, dot: noise[0]! }))
      : noise.map((dot) => ({ at: x(dot.index), dot }))
  const upper = ends.map(({ at, dot }) => `${p(at)} ${p(y(dot.high ?? dot.y))}`)
  const lower = ends.toReversed().map(({ at, dot }) => `${p(at)} ${p(y(dot.low ?? dot.y))}`)
  return `M${[...upper, ...lower].join('L')}Z`
}
