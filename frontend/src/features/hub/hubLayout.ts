/** Where adapters sit around the base model: one ring up to 12, two up to 30, three up to 50. */

export interface Spot {
  x: number
  y: number
  radius: number
}

/** The circle in the middle: the name of a numbered node stands in it. */
export const centreOf = (count: number): number => (count <= 12 ? 84 : 82)

/** A name in lines that the circle is wide enough for. */
export function linesOf(name: string): string[] {
  if (name.length <= 16) return [name]
  const breaks = [...name.matchAll(/[- ]/g)].map(({ index }) => index + 1)
  const middle = breaks.sort((a, b) => Math.abs(a - name.length / 2) - Math.abs(b - name.length / 2))[0]
  return middle === undefined ? [name] : [name.slice(0, middle).trimEnd(), name.slice(middle)]
}

export function spots(count: number, width: number, height: number): Spot[] {
  const rings = count <= 12 ? 1 : count <= 30 ? 2 : 3
  // Numbered nodes are still 44 px wide where the drawing is at its smallest (a window of 48rem).
  const radius = count <= 8 ? 54 : count <= 12 ? 46 : 25
  // Outer rings are longer and take more nodes.
  const weights = Array.from({ length: rings }, (_, ring) => ringSize(ring, rings))
  const sum = weights.reduce((total, weight) => total + weight, 0)
  const perRing = weights.map((weight) => Math.floor((count * weight) / sum))
  for (let left = count - perRing.reduce((total, n) => total + n, 0); left > 0; left--)
    perRing[rings - 1 - ((left - 1) % rings)]! += 1
  const found: Spot[] = []
  perRing.forEach((n, ring) => {
    const size = ringSize(ring, rings)
    const [rx, ry] = [size * (width / 2 - radius - 10), size * (height / 2 - radius - 8)]
    for (let index = 0; index < n; index++) {
      const angle = -Math.PI / 2 + (2 * Math.PI * (index + (ring % 2) * 0.5)) / n
      found.push({ x: width / 2 + rx * Math.cos(angle), y: height / 2 + ry * Math.sin(angle), radius })
    }
  })
  return found
}

const ringSize = (ring: number, rings: number): number =>
  rings === 1 ? 1 : rings === 2 ? [0.62, 1][ring]! : [0.5, 0.75, 1][ring]!
