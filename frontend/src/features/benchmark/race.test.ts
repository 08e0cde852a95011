import { describe, expect, it } from 'vitest'
import { EMPTY, framesOf, MOST, recorded, standing } from './race'

describe('the race', () => {
  it('keeps its beginning and its end however long it runs', () => {
    let recording = EMPTY
    for (let index = 0; index < 10 * MOST; index++) recording = recorded(recording, { at: index + 1 })
    const at = framesOf(recording).map((frame) => frame.at!)
    expect(at.length).toBeLessThanOrEqual(MOST + 1)
    expect([at[0], at.at(-1)]).toEqual([1, 10 * MOST])
    const gaps = at.slice(1).map((value, index) => value - at[index]!)
    expect(Math.min(...gaps)).toBeGreaterThan(0)
    expect(Math.max(...gaps)).toBeLessThanOrEqual(20)
  })
  it('is led by the least time; what was not measured yet does not run', () => {
    expect(standing({ dense: 1, merged: 0.98, slow: 3, waiting: 0 }, 2)).toEqual([
      { id: 'merged', ratio: 0.98 },
      { id: 'dense', ratio: 1 },
    ])
    expect(standing(undefined, 3)).toEqual([])
  })
})
