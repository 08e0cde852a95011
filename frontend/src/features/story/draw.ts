/** Draws the step: two towers of tensors back to back, the model's layers between them, memory over time below. */
import { arrangeCurve, drawCurve, type Curve } from './curve'
import { geometry, packed, pieces, type Geometry } from './layout'
import { aliveAt, eventAt, slotAt, type Life } from './lives'
import type { Palette, Scene } from './scene'

interface Tower {
  /** Pieces of tensor n from `first[n]` to `first[n + 1]`. */
  first: Uint32Array
  piece: Float32Array
  /** Where the adapter begins in each row, in pixels of the row's lines; -1: none. */
  adapter: Float64Array
  /** Events of one layer: for so long a birth shines and a release is still to be seen. */
  glow: number
}

export interface Drawing {
  width: number
  height: number
  place: Geometry
  /** Bytes that each row takes at its fullest, with the method that needs more. */
  extents: number[]
  towers: Tower[]
  still?: Still
  spine: number
  top: number
  curve: Curve
}

const WEIGHTS = 0
const ADAPTER = 1
const GRADIENTS = 3
const PER = 4
const ALIVE = 0.8
const FROZEN = 0.34

export function arrange(scene: Scene, width: number, height: number): Drawing {
  const narrow = width < 520
  const spine = narrow ? 40 : 64
  const top = 4
  const below = narrow ? 82 : 112
  const side = (width - spine) / 2 - 2
  const places = scene.places.length
  const found = scene.lives.map((life) => packed(life, places))
  const extents = scene.places.map((_, index) => Math.max(...found.map(({ extent }) => extent[index]!)))
  const place = geometry(extents, side, height - top - below)
  const towers = scene.lives.map((life, method) => towerOf(life, found[method]!.offset, place, places))
  return {
    width,
    height,
    place,
    extents,
    towers,
    spine,
    top,
    curve: arrangeCurve(scene, height - below + 18, below - 20, width),
  }
}

function towerOf(life: Life, offset: Float64Array, place: Geometry, places: number): Tower {
  const first = new Uint32Array(life.count + 1)
  const piece: number[] = []
  const adapter = new Float64Array(places).fill(-1)
  for (let index = 0; index < life.count; index++) {
    const row = place.rows[life.place[index]!]!
    for (const part of pieces(place, offset[index]!, life.bytes[index]!))
      piece.push(row.y + part.line * place.line, part.x, part.width, place.line - place.gap)
    first[index + 1] = piece.length / PER
    const own = life.place[index]!
    if (life.category[index] === ADAPTER && adapter[own]! < 0) adapter[own] = offset[index]! / place.scale
  }
  const layers = life.stretches.filter((stretch) => stretch.phase === 'backward')
  const glow = Math.max(12, 0.8 * (layers.length ? life.total.length / (2 * layers.length) : 40))
  return { first, piece: Float32Array.from(piece), adapter, glow }
}

export function draw(
  context: CanvasRenderingContext2D,
  scene: Scene,
  at: Drawing,
  time: number,
  palette: Palette,
  ratio: number,
): void {
  context.setTransform(1, 0, 0, 1, 0, 0)
  context.clearRect(0, 0, at.width * ratio, at.height * ratio)
  const still = stillOf(scene, at, time, palette, ratio)
  context.drawImage(still.canvas, 0, 0)
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.font = `600 12px system-ui, sans-serif`
  scene.lives.forEach((life, method) => {
    const event = eventAt(scene.slots, method, time)
    moving(context, life, at, method, event, still.moving[method]!, palette)
    adapters(
      context,
      life,
      at,
      method,
      Math.floor(event + 1e-9),
      still.learning[method]!,
      still.moving[method]!,
      palette,
    )
  })
  context.globalAlpha = 1
  spine(context, scene, at, time, palette)
  drawCurve(context, scene, at.curve, time, palette)
}

/** What stands still while some layers are walked, drawn once for all these frames, and what moves meanwhile. */
interface Still {
  group: number
  palette: Palette
  canvas: HTMLCanvasElement
  moving: number[][]
  /** Rows whose adapter has a gradient throughout. */
  learning: Set<number>[]
}

const LAYERS_AT_ONCE = 4

function stillOf(scene: Scene, at: Drawing, time: number, palette: Palette, ratio: number): Still {
  const { slots } = scene
  const index = slots.findIndex((slot) => time <= slot.to)
  const group = index < 0 ? Infinity : Math.floor(index / LAYERS_AT_ONCE)
  if (at.still?.group === group && at.still.palette === palette) return at.still
  const canvas = at.still?.canvas ?? document.createElement('canvas')
  canvas.width = Math.round(at.width * ratio)
  canvas.height = Math.round(at.height * ratio)
  const context = canvas.getContext('2d')!
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  tracks(context, at, palette)
  const learning = scene.lives.map(() => new Set<number>())
  const found = scene.lives.map((life, method) => {
    const from = index < 0 ? slots.at(-1)!.events[method]![1] : slots[group * LAYERS_AT_ONCE]!.events[method]![0]
    const last = index < 0 ? undefined : slots[Math.min(slots.length, (group + 1) * LAYERS_AT_ONCE) - 1]!
    const to = last ? last.events[method]![1] : life.total.length
    const { glow } = at.towers[method]!
    const others: number[] = []
    for (let one = 0; one < life.count; one++) {
      const [birth, death, turn] = [life.birth[one]!, life.death[one]!, life.turn[one]!]
      if (birth >= to || from > death + glow) continue
      const rests = (birth < 0 || birth + glow < from) && death >= to && (turn < from || turn > to)
      if (!rests) {
        others.push(one)
        continue
      }
      const kind = turn < from ? life.turned[one]! : life.category[one]!
      if (method > 0 && kind === GRADIENTS) learning[method]!.add(life.place[one]!)
      context.fillStyle = palette.categories[kind]!
      context.globalAlpha = kind === WEIGHTS && life.trains[one] === 0 ? FROZEN : ALIVE
      block(context, at, method, one)
    }
    return others
  })
  return (at.still = { group, palette, canvas, moving: found, learning })
}

/** x and width on the side of a method: the first one's lines run to the left. */
const sided = (at: Drawing, method: number, x: number, width: number): number =>
  method === 0 ? (at.width - at.spine) / 2 - x - width : (at.width + at.spine) / 2 + x

function block(context: CanvasRenderingContext2D, at: Drawing, method: number, index: number): void {
  const { first, piece } = at.towers[method]!
  for (let k = first[index]! * PER; k < first[index + 1]! * PER; k += PER) {
    const width = piece[k + 2]!
    const x = sided(at, method, piece[k + 1]!, width)
    context.fillRect(x, at.top + piece[k]!, width > 3 ? width - 0.75 : width, piece[k + 3]!)
  }
}

/** The room that the fuller method of a row takes at its fullest. */
function tracks(context: CanvasRenderingContext2D, at: Drawing, palette: Palette): void {
  context.fillStyle = palette.track
  at.place.rows.forEach((row, index) => {
    for (const { line, x, width } of pieces(at.place, 0, at.extents[index]!))
      for (const method of at.towers.keys())
        context.fillRect(
          sided(at, method, x, width),
          at.top + row.y + line * at.place.line,
          width,
          at.place.line - at.place.gap,
        )
  })
}

/** Tensors that come, are new, change their kind or go: a birth shines for a while, and a release is seen for a while. */
function moving(
  context: CanvasRenderingContext2D,
  life: Life,
  at: Drawing,
  method: number,
  event: number,
  indices: readonly number[],
  palette: Palette,
): void {
  const { glow } = at.towers[method]!
  const now = Math.floor(event + 1e-9)
  // At the very end memory is as it was before, without traces of what went last.
  const over = event > life.total.length - 1.5
  for (const index of indices) {
    const [birth, death] = [life.birth[index]!, life.death[index]!]
    if (birth >= now || now > death + glow || (over && now > death)) continue
    const alive = now <= death
    const kind = now > life.turn[index]! ? life.turned[index]! : life.category[index]!
    context.fillStyle = palette.categories[kind]!
    if (!alive) {
      context.globalAlpha = 0.26 * Math.max(0, 1 - (event - death) / glow)
      block(context, at, method, index)
      continue
    }
    context.globalAlpha = kind === WEIGHTS && life.trains[index] === 0 ? FROZEN : ALIVE
    if (birth >= 0) context.globalAlpha *= 1 - 0.5 * Math.max(0, 1 - (event - birth) / glow)
    block(context, at, method, index)
  }
}

/** An adapter is far thinner than a pixel: a line of its own tells where it is, a broader one that it has a gradient. */
function adapters(
  context: CanvasRenderingContext2D,
  life: Life,
  at: Drawing,
  method: number,
  now: number,
  always: ReadonlySet<number>,
  indices: readonly number[],
  palette: Palette,
): void {
  const learning = new Set(always)
  if (method > 0)
    for (const index of indices)
      if (life.turned[index] === GRADIENTS && now > life.turn[index]! && aliveAt(life, index, now))
        learning.add(life.place[index]!)
  context.fillStyle = palette.categories[ADAPTER]!
  context.globalAlpha = 1
  at.towers[method]!.adapter.forEach((offset, row) => {
    if (offset < 0) return
    const own = at.place.rows[row]!
    const line = Math.min(own.lines - 1, Math.floor(offset / at.place.side))
    const width = learning.has(row) ? 6 : 3
    const x = sided(at, method, Math.min(offset - line * at.place.side, at.place.side - width), width)
    context.fillRect(x, at.top + own.y + line * at.place.line, width, at.place.line - at.place.gap)
  })
}

/** Names between the towers, and where the step is. */
function spine(context: CanvasRenderingContext2D, scene: Scene, at: Drawing, time: number, palette: Palette): void {
  const middle = at.width / 2
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  const here = placeAt(scene, time)
  let free = -Infinity
  const middleOf = (index: number): number => {
    const row = at.place.rows[index]!
    return at.top + row.y + (row.lines * at.place.line - at.place.gap) / 2
  }
  const own = here === null ? null : middleOf(here)
  // The loss has its name, whichever layer's number stands too close to it.
  const last = scene.labels.findLastIndex(Boolean)
  const end = last < 0 ? Infinity : middleOf(last)
  scene.labels.forEach((label, index) => {
    const y = middleOf(index)
    const close = y - free < 15 || (index < last && end - y < 15)
    if (!label || close || (own !== null && Math.abs(y - own) < 17 && index !== here)) return
    if (index === here) return
    context.fillStyle = palette.soft
    context.fillText(label, middle, y)
    free = y
  })
  if (here === null || own === null) return
  const row = at.place.rows[here]!
  context.strokeStyle = palette.ink
  context.lineWidth = 1.5
  const height = Math.max(3, row.lines * at.place.line - at.place.gap)
  for (const method of at.towers.keys())
    context.strokeRect(sided(at, method, 0, at.place.side) + 0.75, at.top + row.y, at.place.side - 1.5, height)
  const text = scene.labels[here] || String(here)
  const wide = Math.min(at.spine - 2, Math.max(24, context.measureText(text).width + 12))
  context.fillStyle = palette.ink
  context.beginPath()
  context.roundRect(middle - wide / 2, own - 10, wide, 20, 10)
  context.fill()
  context.fillStyle = palette.ground
  context.fillText(text, middle, own + 0.5)
}

/** The row that is walked now; null before the step, in the optimizer, and behind it. */
function placeAt(scene: Scene, time: number): number | null {
  const slot = slotAt(scene.slots, time)
  if (!slot || slot.phase === 'optimizer') return null
  const index = scene.places.indexOf(slot.label)
  return index >= 0 ? index : 0
}

/** The tensor under a point, if one is alive there. */
export function tensorAt(
  scene: Scene,
  at: Drawing,
  time: number,
  x: number,
  y: number,
): { method: number; index: number } | null {
  const method = x < at.width / 2 ? 0 : 1
  const life = scene.lives[method]
  if (!life) return null
  const now = Math.floor(eventAt(scene.slots, method, time) + 1e-9)
  const { first, piece } = at.towers[method]!
  for (let index = life.count - 1; index >= 0; index--) {
    if (!aliveAt(life, index, now)) continue
    for (let k = first[index]! * PER; k < first[index + 1]! * PER; k += PER) {
      const left = sided(at, method, piece[k + 1]!, piece[k + 2]!)
      const top = at.top + piece[k]!
      if (x >= left && x <= left + piece[k + 2]! && y >= top && y <= top + piece[k + 3]! + at.place.gap)
        return { method, index }
    }
  }
  return null
}
