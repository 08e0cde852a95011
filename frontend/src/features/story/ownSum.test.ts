import { expect, it } from 'vitest'
import { reach, readSize } from './ownSum'

it("a reader's own sum reaches as far as its bytes, and no byte is lost", () => {
  const items = [
    { id: 'weights', bytes: 100 },
    { id: 'activations', bytes: 60 },
    { id: 'context', bytes: 10 },
  ]
  expect(reach(items, 130).map((item) => item.reached)).toEqual([100, 30, 0])
  expect(reach(items, 1000).map((item) => item.reached)).toEqual([100, 60, 10])
  expect(readSize('15.4', 'GB')).toBe(15.4e9)
  expect(readSize('18329', 'MiB')).toBe(18_329 * 2 ** 20)
  for (const text of ['', '0', 'x', '-3', '1e9']) expect(readSize(text, 'GiB')).toBeNull()
})
