/** A chart that stands alone: its title, what was set, its legend above it, and where it comes from below it. */

export interface LegendItem {
  name: string
  colour: string
  /** A line with these dashes; without it an area. */
  dash?: string
}

export interface Frame {
  title: string
  lines: string[]
  legend: LegendItem[]
  source: string
}

export interface FrameColours {
  ground: string
  ink: string
  soft: string
  family: string
  /** A colour of the style sheet as a value. */
  colour: (text: string) => string
}

const PAD = 18
const SMALL = 12
const LEAST = 420

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

/** About how wide a text is: signs of Chinese are as wide as they are high. */
export const widthOf = (text: string, size: number): number =>
  [...text].reduce((sum, sign) => sum + (sign.codePointAt(0)! > 0x2e80 ? 1 : 0.58), 0) * size

/** Cut into lines of at most this width, at spaces, or anywhere where there are none. */
export function wrapped(text: string, size: number, width: number): string[] {
  const found: string[] = []
  let line = ''
  for (const piece of text.match(/[\u2e80-\uffff]|[^\s\u2e80-\uffff]+\s*|\s+/g) ?? []) {
    if (line && widthOf(line + piece.trimEnd(), size) > width) {
      found.push(line.trimEnd())
      line = ''
    }
    line += piece
    while (widthOf(line, size) > width && line.length > 8) {
      const fits = Math.max(8, Math.floor(width / (0.58 * size)))
      if (fits >= line.length) break
      found.push(line.slice(0, fits))
      line = line.slice(fits)
    }
  }
  return line.trim() ? [...found, line.trimEnd()] : found
}

/** `inner`: the chart as an `<svg>` element with its own ground. */
export function framed(
  inner: string,
  size: { width: number; height: number },
  frame: Frame,
  colours: FrameColours,
): string {
  const width = Math.max(LEAST, size.width) + 2 * PAD
  const room = width - 2 * PAD
  const parts: string[] = []
  let y = PAD
  const text = (line: string, height: number, weight: number, colour: string): void => {
    y += height
    parts.push(`<text x="${PAD}" y="${y - 0.28 * height}" font-size="${height / 1.4}" font-weight="${weight}" fill="${colour}">${escaped(line)}</text>`) // prettier-ignore
  }
  for (const line of wrapped(frame.title, 18, room)) text(line, 25, 680, colours.ink)
  for (const line of frame.lines.flatMap((one) => wrapped(one, SMALL, room))) text(line, 17, 400, colours.soft)
  if (frame.legend.length > 0) {
    y += 8
    let x = PAD
    for (const { name, colour, dash } of frame.legend) {
      const wide = 22 + widthOf(name, SMALL) + 16
      if (x > PAD && x + wide > width - PAD) {
        x = PAD
        y += 18
      }
      const paint = colours.colour(colour)
      parts.push(
        dash === undefined
          ? `<rect x="${x}" y="${y + 2}" width="11" height="11" rx="2" fill="${paint}"/>`
          : `<line x1="${x}" x2="${x + 18}" y1="${y + 8}" y2="${y + 8}" stroke="${paint}" stroke-width="2.5" stroke-dasharray="${escaped(dash)}"/>`,
        `<text x="${x + (dash === undefined ? 17 : 24)}" y="${y + 12}" font-size="${SMALL}" fill="${colours.soft}">${escaped(name)}</text>`,
      )
      x += wide + (dash === undefined ? 0 : 7)
    }
    y += 20
  }
  y += 8
  parts.push(inner.replace('<svg', `<svg x="${PAD}" y="${y}"`))
  y += size.height + 8
  for (const line of wrapped(frame.source, 11, room)) text(line, 15.5, 400, colours.soft)
  const height = y + PAD - 4
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="${escaped(colours.family)}"><rect width="100%" height="100%" fill="${colours.ground}"/>${parts.join('')}</svg>`
}
