/** Memory over the time of the step, below the towers. */
import { methodStroke } from '@/shared/charts/categories'
import { eventAt, type Life } from './lives'
import type { Palette, Scene } from './scene'

export interface Curve {
  top: number
  height: number
  left: number
  right: number
  /** Bytes at the upper edge. */
  limit: number
  /** Of each method, the most that is alive within each pixel. */
  lines: Float64Array[]
}

export function arrangeCurve(scene: Scene, top: number, height: number, width: number): Curve {
  const [left, right] = [1, width - 2]
  const highest = Math.max(...scene.lives.map((life) => life.peakBytes))
  const limit = 1.12 * Math.max(highest, Math.min(scene.limit?.bytes ?? 0, 1.6 * highest))
  const lines = scene.lives.map((life, method) => curveOf(scene, life, method, Math.max(2, Math.round(right - left))))
  return { top, height, left, right, limit, lines }
}

function curveOf(scene: Scene, life: Life, method: number, width: number): Float64Array {
  const line = new Float64Array(width + 1)
  let from = 0
  for (let pixel = 0; pixel <= width; pixel++) {
    const to = Math.floor(eventAt(scene.slots, method, pixel / width))
    let most = 0
    for (let event = Math.min(from, to); event <= to; event++) most = Math.max(most, life.total[event] ?? 0)
    line[pixel] = most
    from = to + (to > from ? 1 : 0)
    if (from > to) from = to
  }
  return line
}

export function drawCurve(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: Curve,
  time: number,
  palette: Palette,
): void {
  const { top, height, left, right, limit, lines } = at
  const y = (bytes: number): number => top + height - (bytes / limit) * height
  context.textBaseline = 'alphabetic'
  context.strokeStyle = palette.line
  context.lineWidth = 1
  context.beginPath()
  context.moveTo(left, top + height)
  context.lineTo(right, top + height)
  context.stroke()
  const path = (line: Float64Array): void => {
    context.beginPath()
    line.forEach((bytes, pixel) => context.lineTo(left + (pixel * (right - left)) / (line.length - 1), y(bytes)))
  }
  const cut = left + time * (right - left)
  for (const [past, alpha] of [
    [false, 0.3],
    [true, 1],
  ] as const) {
    context.save()
    context.beginPath()
    context.rect(past ? left : cut, top - 12, past ? cut - left : right - cut, top + height + 4)
    context.clip()
    // The area between the two is what the second method saves.
    if (lines.length === 2) {
      context.globalAlpha = 0.14 * alpha
      context.fillStyle = palette.methods[0]!
      path(lines[0]!)
      for (let pixel = lines[1]!.length - 1; pixel >= 0; pixel--)
        context.lineTo(left + (pixel * (right - left)) / (lines[1]!.length - 1), y(lines[1]![pixel]!))
      context.fill()
    }
    lines.forEach((line, method) => {
      context.globalAlpha = alpha
      context.strokeStyle = palette.methods[method]!
      context.lineWidth = 2
      const { dash } = methodStroke(scene.lives[method]!.method)
      context.setLineDash(dash === 'none' ? [] : dash.split(' ').map(Number))
      path(line)
      context.stroke()
      context.setLineDash([])
      if (method > 0) {
        context.globalAlpha = 0.16 * alpha
        context.fillStyle = palette.methods[method]!
        context.lineTo(right, top + height)
        context.lineTo(left, top + height)
        context.fill()
      }
    })
    context.restore()
  }
  context.globalAlpha = 1
  if (scene.limit && scene.limit.bytes < limit) {
    context.strokeStyle = palette.ink
    context.lineWidth = 1.5
    context.setLineDash([2, 3])
    context.beginPath()
    context.moveTo(left, y(scene.limit.bytes))
    context.lineTo(right, y(scene.limit.bytes))
    context.stroke()
    context.setLineDash([])
    context.fillStyle = palette.ink
    context.textAlign = 'left'
    context.fillText(scene.limit.name, left, y(scene.limit.bytes) - 5)
  }
  context.strokeStyle = palette.ink
  context.lineWidth = 1.5
  context.beginPath()
  context.moveTo(cut, top - 6)
  context.lineTo(cut, top + height)
  context.stroke()
  scene.lives.forEach((life, method) => {
    const event = Math.floor(eventAt(scene.slots, method, time) + 1e-9)
    context.fillStyle = palette.methods[method]!
    context.strokeStyle = palette.ground
    context.lineWidth = 2
    context.beginPath()
    context.arc(cut, y(life.total[Math.min(event, life.total.length - 1)]!), 4.5, 0, 7)
    context.fill()
    context.stroke()
  })
}

/** Whether a point is on the curve of time, and where on the axis. */
export function timeAt(at: Curve, x: number, y: number): number | null {
  const { top, left, right } = at
  return y < top - 8 ? null : Math.max(0, Math.min(1, (x - left) / (right - left)))
}
