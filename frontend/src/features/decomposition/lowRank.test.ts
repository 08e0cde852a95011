import { describe, expect, it } from 'vitest'
import { layout, windowStart } from './draw'
import { cells, evenRank, exampleA, exampleB, factorCells, product } from './lowRank'

describe('the example factors', () => {
  it('multiply as matrices do', () => {
    const values = product(5, [3, 900], [7, 4000, 12])
    ;[3, 900].forEach((row, i) =>
      [7, 4000, 12].forEach((column, j) => {
        let sum = 0
        for (let k = 0; k < 5; k++) sum += exampleB(row, k) * exampleA(k, column)
        expect(values[3 * i + j]).toBeCloseTo(sum, 5)
      }),
    )
  })
  it('make a matrix of no higher rank than asked for', () => {
    // At rank 1 every 2 × 2 minor vanishes.
    const [a, b, c, d] = product(1, [10, 20], [30, 40])
    expect(a! * d! - b! * c!).toBeCloseTo(0, 5)
  })
  it('are the same at every visit and spread on both sides of zero', () => {
    expect(exampleB(5, 6)).toBe(exampleB(5, 6))
    const many = Array.from({ length: 2000 }, (_, k) => exampleB(k, 0))
    expect(Math.abs(many.reduce((sum, value) => sum + value, 0) / many.length)).toBeLessThan(0.05)
    expect(Math.max(...many)).toBeLessThanOrEqual(1)
  })
})

describe('the picture', () => {
  it('keeps the proportions of the matrix', () => {
    const place = layout({ out: 11008, in: 4096 }, 500)
    expect(place.height / place.width).toBeCloseTo(11008 / 4096, 6)
    expect(place.x).toBeGreaterThanOrEqual(0)
    expect(place.y).toBeGreaterThanOrEqual(0)
  })
  it('counts B and A', () => {
    const square = { out: 4096, in: 4096 }
    expect([cells(square), factorCells(square, 8), evenRank(square)]).toEqual([16_777_216, 65_536, 2048])
  })
  it('keeps the window inside', () => {
    expect(windowStart({ out: 100, in: 4096 }, 99, 4095)).toEqual([36, 4032])
    expect(windowStart({ out: 10, in: 10 }, 9, 9)).toEqual([0, 0])
  })
})
