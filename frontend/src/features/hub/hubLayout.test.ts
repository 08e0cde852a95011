import { expect, it } from 'vitest'
import { centreOf, linesOf, spots } from './hubLayout'
import { matching } from './names'

it.each(Array.from({ length: 50 }, (_, index) => index + 1))(
  '%i adapters stay apart, inside, and off the centre',
  (count) => {
    const found = spots(count, 760, 520)
    expect(found).toHaveLength(count)
    found.forEach((spot, index) => {
      expect(spot.x - spot.radius).toBeGreaterThanOrEqual(0)
      expect(spot.x + spot.radius).toBeLessThanOrEqual(760)
      expect(spot.y - spot.radius).toBeGreaterThanOrEqual(0)
      expect(spot.y + spot.radius).toBeLessThanOrEqual(520)
      expect(Math.hypot(spot.x - 380, spot.y - 260)).toBeGreaterThan(spot.radius + centreOf(count))
      for (const other of found.slice(index + 1))
        expect(Math.hypot(spot.x - other.x, spot.y - other.y)).toBeGreaterThan(2 * spot.radius)
    })
  },
)

it('a long name stands in two lines', () => {
  expect(linesOf('Llama-3.1-8B')).toEqual(['Llama-3.1-8B'])
  expect(linesOf('DeepSeek-R1-Distill-Qwen-32B')).toEqual(['DeepSeek-R1-', 'Distill-Qwen-32B'])
  expect(linesOf('Mistral Small 3.2 24B')).toEqual(['Mistral', 'Small 3.2 24B'])
})

it('a task is found by a part of its name or by its number', () => {
  const names = ['Email summary', 'Code generation', ...Array.from({ length: 20 }, (_, index) => `Task ${index + 3}`)]
  expect(matching(names, ' ')).toHaveLength(22)
  expect(matching(names, 'CODE')).toEqual([1])
  expect(matching(names, '2')).toEqual([1, 11, 19, 20, 21])
  expect(matching(names, '7')).toEqual([6, 16])
  expect(matching(names, 'none')).toEqual([])
})
