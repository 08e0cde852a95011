import { describe, expect, it } from 'vitest'
import { geometry, packed, pieces } from './layout'
import { eventAt, readLife, slotsOf, sumsAt, whole, type Served } from './lives'

/** Two layers; a weight, an activation that is kept, a temporary, a buffer that becomes a gradient. */
const served = (method: string): Served => ({
  method,
  recipe: {} as Served['recipe'],
  places: ['embeddings', 'layers.0', 'loss'],
  kinds: [
    { name: 'weight', category: 'weights', bytes: 100, formula: '100' },
    { name: 'kept', category: 'activations', bytes: 10, formula: '10·B·S' },
    { name: 'passing', category: 'temporaries', bytes: 4, formula: '4' },
    { name: 'gradient of weight', category: 'gradients', bytes: 100, formula: '100' },
    { name: 'buffer', category: 'temporaries', bytes: 100, formula: '100' },
  ],
  resting: { kind: [0], place: [1], trains: [true] },
  // born: kept 0, passing 1; died passing 2; buffer born 3, kept died 4
  tensors: { kind: [1, 2, 4], place: [1, 1, 1], birth: [0, 1, 3], death: [4, 2, null] },
  renames: [{ tensor: 2, event: 4, kind: 3 }],
  marks: [
    { phase: 'forward', label: 'embeddings', event: 0 },
    { phase: 'forward', label: 'layers.0', event: 3 },
    { phase: 'forward', label: 'loss', event: 3 },
    { phase: 'backward', label: 'layers.0', event: 5 },
    { phase: 'backward', label: 'end of backward', event: 5 },
    { phase: 'optimizer', label: 'end of the step', event: 5 },
  ],
  events: 5,
  peak_bytes: 210,
})
const places = served('full').places

describe('the tensors of a step', () => {
  const life = readLife(served('full'), places)
  it('add up at every event', () => {
    expect([...life.total]).toEqual([100, 110, 114, 110, 210, 200, 100])
    expect(Math.max(...life.total)).toBe(life.peakBytes)
    for (let event = 0; event < life.total.length; event++)
      expect(sumsAt(life, event).reduce((sum, part) => sum + part)).toBe(life.total[event])
  })
  it('change their kind when they change their name', () => {
    const kinds = (event: number) => sumsAt(life, event)
    expect(kinds(4)[3]).toBe(0)
    expect(kinds(4)[6]).toBe(100)
    expect(kinds(5)[3]).toBe(100)
    expect(kinds(6)[3]).toBe(0)
  })
  it('run on one axis with those of other methods', () => {
    const slots = slotsOf([life, readLife(served('lora'), places)])
    expect(slots[0]!.from).toBeGreaterThan(0)
    for (let index = 1; index < slots.length; index++) expect(slots[index]!.from).toBeCloseTo(slots[index - 1]!.to, 12)
    expect(eventAt(slots, 0, 0)).toBe(0)
    expect(eventAt(slots, 1, slots.at(-1)!.to)).toBe(5)
    expect(whole(life, eventAt(slots, 0, 1))).toBe(6)
    let before = 0
    for (let time = 0; time <= 1; time += 0.001) {
      const event = eventAt(slots, 0, time)
      expect(event).toBeGreaterThanOrEqual(before)
      before = event
    }
  })
})

describe('the picture', () => {
  const life = readLife(served('full'), places)
  it('gives no byte to two tensors that are alive together', () => {
    const { offset, extent } = packed(life, 3)
    expect([...extent]).toEqual([0, 214, 0])
    for (let a = 0; a < life.count; a++)
      for (let b = 0; b < a; b++) {
        const together = life.birth[a]! <= life.death[b]! && life.birth[b]! <= life.death[a]!
        const apart = offset[a]! >= offset[b]! + life.bytes[b]! || offset[b]! >= offset[a]! + life.bytes[a]!
        expect(!together || apart).toBe(true)
      }
  })
  it('has the same area for a byte everywhere, and keeps within its room', () => {
    const extents = [30, 10, 10, 10, 95]
    const place = geometry(extents, 100, 50)
    const last = place.rows.at(-1)!
    expect(last.y + last.lines * place.line).toBeCloseTo(50, 9)
    extents.forEach((extent, index) => {
      const found = pieces(place, 0, extent)
      expect(found.reduce((sum, piece) => sum + piece.width, 0) * place.scale).toBeCloseTo(extent, 9)
      expect(Math.max(...found.map((piece) => piece.line))).toBeLessThan(place.rows[index]!.lines)
      for (const piece of found) expect(piece.x + piece.width).toBeLessThanOrEqual(100 + 1e-9)
    })
  })
})
