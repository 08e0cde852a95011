import { expect, it } from 'vitest'
import { spots } from './hubLayout'

it.each(Array.from({ length: 50 }, (_, index) => index + 1))('%i adapters stay apart, inside, and off the centre', (count) => {
  const found = spots(count, 760, 520)
  expect(found).toHaveLength(count)
  found.forEach((spot, index) => {
    expect(spot.x - spot.radius).toBeGreaterThanOrEqual(0)
    expect(spot.x + spot.radius).toBeLessThanOrEqual(760)
    expect(spot.y - spot.radius).toBeGreaterThanOrEqual(0)
    expect(spot.y + spot.radius).toBeLessThanOrEqual(520)
    expect(Math.hypot(spot.x - 380, spot.y - 260)).toBeGreaterThan(spot.radius + (count > 12 ? 62 : 84))
    for (const other of found.slice(index + 1)) expect(Math.hypot(spot.x - other.x, spot.y - other.y)).toBeGreaterThan(2 * spot.radius)
  })
})
