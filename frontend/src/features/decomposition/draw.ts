/** Draws the matrix picture. Knows a context, sizes and colours; nothing of Vue or of the page. */
import { cells, factorCells, product, type Shape } from './lowRank'

export interface Palette {
  ground: string
  ink: string
  positive: string
  negative: string
  factor: string
  area: string
  line: string
  width: string
}

/** What a word of the text can light up: the update, the frozen weight below it, the factors, or their rank. */
export type Part = 'dw' | 'w' | 'b' | 'a' | 'rank'

export interface Picture {
  lit: Part | null
  shape: Shape
  rank: number
  row: number
  column: number
  zoom: number
  /** 0: the whole update; 1: peeled into B and A. */
  peel: number
}

const BLOCKS = 64
export const WINDOW = 64
const GAP = 14

type Rgb = [number, number, number]
const parsed = new Map<string, Rgb>()

/** The canvas itself reads a colour: whatever notation the style sheet was minified to. */
function rgb(colour: string): Rgb {
  let found = parsed.get(colour)
  if (!found) {
    const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', {
      willReadFrequently: true,
    })!
    context.fillStyle = colour
    context.fillRect(0, 0, 1, 1)
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data
    parsed.set(colour, (found = [red!, green!, blue!]))
  }
  return found
}

export interface Layout {
  /** The update's rectangle in CSS pixels. */
  x: number
  y: number
  width: number
  height: number
  scale: number
  blockRows: number
  blockColumns: number
  blockSide: number
}

/** Room beside the update for a strip of the slider's largest rank, so that the picture does not jump while it moves. */
const LARGEST = 512

export function layout(shape: Shape, size: number): Layout {
  const longest = Math.max(shape.out, shape.in)
  const scale = ((size - GAP - 2) / (longest + Math.min(LARGEST, longest / 8))) * (1 - 22 / size)
  const blockSide = Math.max(shape.out, shape.in) / BLOCKS
  return {
    x: size - shape.in * scale - 1,
    y: size - shape.out * scale - 1,
    width: shape.in * scale,
    height: shape.out * scale,
    scale,
    blockSide,
    blockRows: Math.max(1, Math.round(shape.out / blockSide)),
    blockColumns: Math.max(1, Math.round(shape.in / blockSide)),
  }
}

/** The first row and column of the 64 × 64 window of true cells around a cell. */
export function windowStart(shape: Shape, row: number, column: number): [number, number] {
  const start = (value: number, length: number): number =>
    Math.max(0, Math.min(length - WINDOW, Math.floor(value / WINDOW) * WINDOW))
  return [start(row, shape.out), start(column, shape.in)]
}

const cache = new WeakMap<CanvasRenderingContext2D, { key: string; bitmap: HTMLCanvasElement }>()

function heat(
  context: CanvasRenderingContext2D,
  key: string,
  rank: number,
  rows: number[],
  columns: number[],
  palette: Palette,
): HTMLCanvasElement {
  const cached = cache.get(context)
  if (cached?.key === key) return cached.bitmap
  const values = product(rank, rows, columns)
  let largest = 1e-6
  for (const value of values) largest = Math.max(largest, Math.abs(value))
  const bitmap = Object.assign(document.createElement('canvas'), { width: columns.length, height: rows.length })
  const target = bitmap.getContext('2d')!
  const image = target.createImageData(columns.length, rows.length)
  const ground = rgb(palette.ground)
  const [positive, negative] = [rgb(palette.positive), rgb(palette.negative)]
  values.forEach((value, index) => {
    const hue = value >= 0 ? positive : negative
    const strength = 0.06 + 0.6 * Math.sqrt(Math.abs(value) / largest)
    for (let channel = 0; channel < 3; channel++)
      image.data[4 * index + channel] = ground[channel]! + (hue[channel]! - ground[channel]!) * strength
    image.data[4 * index + 3] = 255
  })
  target.putImageData(image, 0, 0)
  cache.set(context, { key, bitmap })
  return bitmap
}

interface Box {
  x: number
  y: number
  width: number
  height: number
}

/** A frame around a part of the picture; hairlines get room around them so that they can be seen at all. */
function frame(context: CanvasRenderingContext2D, box: Box, colour: string, room = 4): void {
  context.strokeStyle = colour
  context.lineWidth = 3
  context.strokeRect(box.x - room, box.y - room, box.width + 2 * room, box.height + 2 * room)
}

/** Two arrowheads that point at the two sides of a strip: so wide is the rank. */
function gauge(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  across: number,
  upright: boolean,
  colour: string,
): void {
  const [long, half] = [10, 6]
  context.fillStyle = colour
  for (const sign of [-1, 1]) {
    const tip = sign < 0 ? -1 : across + 1
    context.beginPath()
    for (const [along, aside] of [
      [tip, 0],
      [tip + sign * long, half],
      [tip + sign * long, -half],
    ] as const) {
      if (upright) context.lineTo(x + aside, y + along)
      else context.lineTo(x + along, y + aside)
    }
    context.fill()
  }
}

function light(
  context: CanvasRenderingContext2D,
  part: Part,
  parts: { matrix: Box; b: Box; a: Box },
  palette: Palette,
): void {
  const { matrix, b, a } = parts
  if (part === 'dw') frame(context, matrix, palette.positive, 1)
  if (part === 'w') {
    context.fillStyle = palette.negative
    context.globalAlpha = 0.3
    context.fillRect(matrix.x, matrix.y, matrix.width, matrix.height)
    context.globalAlpha = 1
    frame(context, matrix, palette.negative, 1)
  }
  if (part === 'b') frame(context, b, palette.factor)
  if (part === 'a') frame(context, a, palette.factor)
  if (part === 'rank') {
    // Beside the labels, which stand at the strips' beginnings.
    for (const share of [0.55, 0.78]) {
      gauge(context, b.x, b.y + share * b.height, b.width, false, palette.width)
      gauge(context, a.x + share * a.width, a.y, a.height, true, palette.width)
    }
  }
}

const range = (length: number, at: (index: number) => number): number[] =>
  Array.from({ length }, (_, index) => at(index))

export function draw(
  context: CanvasRenderingContext2D,
  size: number,
  ratio: number,
  picture: Picture,
  palette: Palette,
): void {
  const { shape, rank, peel } = picture
  const place = layout(shape, size)
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.clearRect(0, 0, size, size)
  context.imageSmoothingEnabled = false

  if (picture.zoom > 0) {
    const [top, left] = windowStart(shape, picture.row, picture.column)
    const rows = range(Math.min(WINDOW, shape.out), (index) => top + index)
    const columns = range(Math.min(WINDOW, shape.in), (index) => left + index)
    const bitmap = heat(
      context,
      `window ${rank} ${top} ${left} ${JSON.stringify(palette)}`,
      rank,
      rows,
      columns,
      palette,
    )
    const side = (size - GAP - 2) / Math.max(rows.length, columns.length)
    const [x, y] = [size - 1 - columns.length * side, size - 1 - rows.length * side]
    context.drawImage(bitmap, x, y, columns.length * side, rows.length * side)
    const [cellX, cellY] = [x + (picture.column - left) * side, y + (picture.row - top) * side]
    context.fillStyle = palette.factor
    context.fillRect(0, y, GAP - 5, rows.length * side)
    context.fillRect(x, 0, columns.length * side, GAP - 5)
    context.fillStyle = palette.area
    context.fillRect(0, cellY, GAP - 5, side)
    context.fillRect(cellX, 0, side, GAP - 5)
    context.globalAlpha = 0.16
    context.fillRect(x, cellY, columns.length * side, side)
    context.fillRect(cellX, y, side, rows.length * side)
    context.globalAlpha = 1
    context.strokeStyle = palette.ink
    context.lineWidth = 2
    context.strokeRect(cellX, cellY, side, side)
    const [width, height] = [columns.length * side, rows.length * side]
    if (picture.lit)
      light(
        context,
        picture.lit,
        {
          matrix: { x, y, width, height },
          b: { x: 0, y, width: GAP - 5, height },
          a: { x, y: 0, width, height: GAP - 5 },
        },
        palette,
      )
    return
  }

  const rows = range(place.blockRows, (index) => Math.floor((index + 0.5) * place.blockSide))
  const columns = range(place.blockColumns, (index) => Math.floor((index + 0.5) * place.blockSide))
  const bitmap = heat(
    context,
    `whole ${rank} ${shape.out} ${shape.in} ${JSON.stringify(palette)}`,
    rank,
    rows,
    columns,
    palette,
  )
  context.globalAlpha = 1 - 0.72 * peel
  context.drawImage(bitmap, place.x, place.y, place.width, place.height)
  context.globalAlpha = 1
  context.strokeStyle = palette.line
  context.lineWidth = 1
  context.strokeRect(place.x - 0.5, place.y - 0.5, place.width + 1, place.height + 1)

  // B and A at true scale along the two edges: at small ranks they are the hairlines that they are.
  const width = rank * place.scale
  const mix = (from: number, to: number): number => from + (to - from) * peel
  context.fillStyle = palette.factor
  context.globalAlpha = peel < 1 && peel > 0 ? 0.25 + 0.75 * peel : 1
  // While the update is peeled, two sheets of its own size shrink into the two strips.
  const moving = peel > 0 && peel < 1
  const [left, top] = [place.x - 5 - width, place.y - 5 - width]
  context.fillRect(moving ? mix(place.x, left) : left, place.y, moving ? mix(place.width, width) : width, place.height)
  context.fillRect(place.x, moving ? mix(place.y, top) : top, place.width, moving ? mix(place.height, width) : width)
  context.globalAlpha = 1

  // A square with the area of both factors together.
  const side = Math.sqrt(factorCells(shape, rank)) * place.scale
  if (factorCells(shape, rank) <= cells(shape)) {
    const [x, y] = [
      place.x + place.width - Math.min(side, place.width),
      place.y + place.height - Math.min(side, place.height),
    ]
    context.fillStyle = palette.area
    context.globalAlpha = 0.9
    context.fillRect(x, y, side, side)
    context.globalAlpha = 1
  }

  // Where the chosen cell lies.
  context.strokeStyle = palette.ink
  context.globalAlpha = 0.55
  context.lineWidth = 1
  const [x, y] = [place.x + (picture.column + 0.5) * place.scale, place.y + (picture.row + 0.5) * place.scale]
  context.beginPath()
  context.moveTo(place.x - GAP, y)
  context.lineTo(x, y)
  context.moveTo(x, place.y - GAP)
  context.lineTo(x, y)
  context.stroke()
  context.globalAlpha = 1
  context.beginPath()
  context.arc(x, y, 3.5, 0, 2 * Math.PI)
  context.fillStyle = palette.ground
  context.fill()
  context.stroke()
  if (picture.lit) {
    const strip = {
      b: { x: left, y: place.y, width, height: place.height },
      a: { x: place.x, y: top, width: place.width, height: width },
    }
    light(context, picture.lit, { matrix: place, ...strip }, palette)
  }
}
