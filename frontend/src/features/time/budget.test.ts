import { describe, expect, it } from 'vitest'
import { difference, grouped, REST, SMALL, WORTH_SAYING } from './budget'

const full = { products: 4, weight_gradients: 2, elementwise: 1, optimizer: 0.5, fixed: 0.5 }
const qlora = { products: 4, narrow_products: 0.3, unpacking: 1.5, elementwise: 1.05, optimizer: 0.01, fixed: 0.5 }

describe("a step's time as a budget", () => {
  it('keeps every second', () => {
    for (const parts of [full, qlora]) {
      const sum = (rows: number[]): number => rows.reduce((total, seconds) => total + seconds, 0)
      expect(sum(grouped(parts).map((row) => row.seconds))).toBeCloseTo(sum(Object.values(parts)), 12)
    }
  })

  it('puts what it does not know into the rest', () => {
    expect(grouped({ products: 1, something_new: 2 })).toEqual([
      { group: 'products', seconds: 1 },
      { group: REST, seconds: 2 },
    ])
  })

  it('names what is saved and what is spent, the largest first, and nothing small', () => {
    const { saved, spent } = difference(full, qlora)
    expect(saved.map((row) => [row.group, Number(row.seconds.toFixed(2))])).toEqual([
      ['weight_gradients', 2],
      ['optimizer', 0.49],
    ])
    expect(spent.map((row) => [row.group, Number(row.seconds.toFixed(2))])).toEqual([
      ['unpacking', 1.5],
      ['narrow_products', 0.3],
    ])
    expect(difference(full, full)).toEqual({ saved: [], spent: [] })
  })

  it('says of small parts together what none of them is worth alone, so that less than the threshold stays unsaid', () => {
    const before = { products: 10 }
    const after = { products: 9, narrow_products: 0.15, unpacking: 0.19, elementwise: 0.18 }
    const { saved, spent } = difference(before, after)
    expect(saved.map((row) => row.group)).toEqual(['products'])
    expect(spent.map((row) => row.group)).toEqual([SMALL])
    expect(spent[0]!.seconds).toBeCloseTo(0.52, 9)
    expect(difference(before, { products: 10, unpacking: 0.1 }).spent).toEqual([])
    expect(0.1).toBeLessThan(WORTH_SAYING * 10)
  })
})
